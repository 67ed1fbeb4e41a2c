#!/usr/bin/env bash
# Train on all nodes of a Slurm job, one process a task; the batch scripts beside this one call it:
#     slurm/launch.sh CONFIG [argument of relvlm/train.py ...]
# PYTHON names the interpreter (default: .venv/bin/python).
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}" # Slurm runs a copy of the batch script from elsewhere
config=$1
shift

# relvlm reads rank, world size and meeting point from srun's variables. One dead rank ends the job, as the others would
# wait for it; they have 20 seconds to say which one it was (relvlm/engine/watchdog.py). srun needs --cpus-per-task again, as it has not taken it over from sbatch since Slurm 22.05.
# Signals are for the ranks, which srun hands them to: they save, and end with the status that asks to be requeued.
trap : TERM USR1 USR2
status=0
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
export RELVLM_REQUEUE=${job:-${SLURM_JOB_ID:-}} # for a rank that finds another one gone: srun then ends with 137
srun --kill-on-bad-exit=0 --wait=20 --label --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    "${PYTHON:-.venv/bin/python}" relvlm/train.py \
    --deepspeed --deepspeed_config configs/deepspeed/zero1.json --config "$config" "$@" || status=$?
echo "srun ended with $status" >&2
if [ "$status" = 200 ]; then
    scontrol requeue "$RELVLM_REQUEUE" # ends this script, too
fi
exit "$status"
