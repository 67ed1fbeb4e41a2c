#!/usr/bin/env bash
# Train on all nodes of a Slurm job, one process a task; the batch scripts beside this one call it:
#     slurm/launch.sh CONFIG [argument of relvlm/train.py ...]
# PYTHON names the interpreter (default: .venv/bin/python).
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}" # Slurm runs a copy of the batch script from elsewhere
config=$1
shift

# relvlm reads rank, world size and meeting point from srun's variables. One dead rank ends the job: the others would
# wait for it. srun needs --cpus-per-task again, as it has not taken it over from sbatch since Slurm 22.05.
exec srun --kill-on-bad-exit=1 --label --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    "${PYTHON:-.venv/bin/python}" relvlm/train.py \
    --deepspeed --deepspeed_config configs/deepspeed/zero1.json --config "$config" "$@"
