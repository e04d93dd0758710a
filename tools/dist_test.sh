#!/usr/bin/env bash
# Test on several processes: one per GPU, or, without a GPU, any number on the CPU.
#
#   tools/dist_test.sh CONFIG CHECKPOINT NUM_PROCS [arguments of test.py]
#
# Environment: PORT, and for several machines NNODES, NODE_RANK, MASTER_ADDR.
set -euo pipefail
if (($# < 3)); then
    echo "usage: $0 CONFIG CHECKPOINT NUM_PROCS [arguments of test.py]" >&2
    exit 2
fi
source "$(dirname "$0")/_torchrun.sh"
run_processes "$3" test.py "$1" "$2" "${@:4}"
