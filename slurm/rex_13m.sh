#!/usr/bin/env bash
# Pretrain ReX-VLM on the 13M mix (paper, section 4) on 4 nodes of 8 GPUs:
#     sbatch slurm/rex_13m.sh
# Options of sbatch go before the script, those of relvlm/train.py after it; another --config comes last and wins:
#     sbatch --nodes 2 --ntasks-per-node 1 --gpus-per-node 0 slurm/rex_13m.sh --config configs/mini/rex_vlm.yaml steps=20
# PYTHON names the interpreter (default: .venv/bin/python of the folder in which sbatch was called).
#SBATCH --job-name=rex_vlm-13m
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=7-00:00:00
#SBATCH --output=%x-%j.log
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"

# One task a process; relvlm reads rank, world size and rendezvous from Slurm's variables.
srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" "${PYTHON:-.venv/bin/python}" relvlm/train.py \
    --deepspeed --deepspeed_config configs/deepspeed/zero1.json --config configs/13m/rex_vlm.yaml "$@"
