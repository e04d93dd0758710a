# Sourced by slurm_train.sh and slurm_test.sh: run_tasks PARTITION JOB_NAME SCRIPT [ARGUMENTS]
#
# Environment: GPUS (total number of tasks, one per GPU), GPUS_PER_NODE (0: all tasks run on CPU),
# CPUS_PER_TASK, SRUN_ARGS, and PORT (default: random, so that two jobs on a node do not collide).
run_tasks() {
    local partition=$1 name=$2 gpus=${GPUS:-4} per_node=${GPUS_PER_NODE:-4} tools
    shift 2
    tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
    local placement=(--ntasks="$gpus")
    if ((per_node > 0)); then
        placement+=(--gres="gpu:$per_node" --ntasks-per-node="$per_node")
    fi
    export MASTER_PORT=${PORT:-$((20000 + RANDOM % 20000))}
    # SRUN_ARGS is a list of arguments in one string, hence unquoted.
    PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}" \
        srun -p "$partition" --job-name="$name" "${placement[@]}" --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
        "${PYTHON:-python}" -u "$tools/$1" "${@:2}" --launcher slurm
}
