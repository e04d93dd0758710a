#!/usr/bin/env bash
# Train on a SLURM cluster.
#
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of train.py]
#
# Environment: GPUS, GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS, PORT; see _srun.sh.
set -euo pipefail
if (($# < 3)); then
    echo "usage: $0 PARTITION JOB_NAME CONFIG [arguments of train.py]" >&2
    exit 2
fi
source "$(dirname "$0")/_srun.sh"
run_tasks "$1" "$2" train.py "${@:3}"
