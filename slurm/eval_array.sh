#!/usr/bin/env bash
# Evaluate every checkpoint of a run on a folder of benchmarks, one task of the job array a share of them:
#     sbatch --array=0-7 slurm/eval_array.sh RUN BENCHMARKS [option of relvlm eval ...]
# Submitted again, it does what is not done. Then: relvlm report RUN
# PYTHON names the interpreter (default: .venv/bin/python).
#SBATCH --job-name=relvlm-eval
#SBATCH --array=0-7
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --output=%x-%A_%a.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}" # Slurm runs a copy of this file from elsewhere
run=$1 benchmarks=$2
shift 2

shard=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))/$SLURM_ARRAY_TASK_COUNT
exec "${PYTHON:-.venv/bin/python}" -m relvlm.cli eval --all-checkpoints "$run" --suite "$benchmarks" \
    --shard "$shard" --device "${DEVICE:-cuda}" "$@"
