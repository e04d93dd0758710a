# Sourced by dist_train.sh and dist_test.sh: run_processes NUM_PROCS SCRIPT [ARGUMENTS]
#
# One machine: a free port is picked, so that two jobs do not collide; $PORT fixes it.
# Several machines: run the same command on each, with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
run_processes() {
    local procs=$1 nodes=${NNODES:-1} tools rendezvous
    shift
    tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
    if [[ ! $procs =~ ^[1-9][0-9]*$ ]]; then
        echo "error: NUM_PROCS=$procs is not a number of processes. Give the number of GPUs, or of CPU processes." >&2
        return 2
    fi
    if [[ $nodes == 1 && -z ${PORT:-} ]]; then
        rendezvous=(--rdzv-backend=c10d --rdzv-endpoint=127.0.0.1:0 --local-addr=127.0.0.1)
    else
        rendezvous=(--node-rank="${NODE_RANK:-0}" --master-addr="${MASTER_ADDR:-127.0.0.1}"
            --master-port="${PORT:-29500}")
    fi
    # The default of torchrun. Setting it here avoids torchrun's long message.
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}" \
        "${PYTHON:-python}" -m torch.distributed.run \
        --nnodes="$nodes" --nproc-per-node="$procs" "${rendezvous[@]}" "$tools/$1" "${@:2}" --launcher pytorch
}
