#!/usr/bin/env bash
# Train the runs of a study, one task of the job array a share of them:
#     sbatch --array=0-19 slurm/study_array.sh configs/study/main.yaml [option of relvlm.study ...]
# Submitted again, it does what is not done. Then: python -m relvlm.study configs/study/main.yaml --report
# PYTHON names the interpreter (default: .venv/bin/python).
#SBATCH --job-name=relvlm-study
#SBATCH --array=0-19
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --time=12:00:00
#SBATCH --output=%x-%A_%a.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}" # Slurm runs a copy of this file from elsewhere
plan=$1
shift

shard=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))/$SLURM_ARRAY_TASK_COUNT
exec "${PYTHON:-.venv/bin/python}" -m relvlm.study "$plan" --processes 1 --shard "$shard" "$@"
