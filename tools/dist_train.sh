#!/usr/bin/env bash
# Train on several processes: one per GPU, or, without a GPU, any number on the CPU.
#
#   tools/dist_train.sh CONFIG NUM_PROCS [arguments of train.py]
#
# Environment: PORT, and for several machines NNODES, NODE_RANK, MASTER_ADDR.
set -euo pipefail
if (($# < 2)); then
    echo "usage: $0 CONFIG NUM_PROCS [arguments of train.py]" >&2
    exit 2
fi
source "$(dirname "$0")/_torchrun.sh"
run_processes "$2" train.py "$1" "${@:3}"
