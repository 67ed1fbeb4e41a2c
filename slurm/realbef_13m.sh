#!/usr/bin/env bash
# Pretrain ReALBEF on the 13M mix (paper, section 4) on 4 nodes of 8 GPUs, from the repository's folder:
#     sbatch slurm/realbef_13m.sh
# Options of sbatch go before the script, those of relvlm/train.py after it; a --config there replaces the script's:
#     sbatch --nodes 2 --ntasks-per-node 1 --gpus-per-node 0 slurm/realbef_13m.sh --config configs/mini/realbef.yaml steps=20
#SBATCH --job-name=realbef-13m
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=7-00:00:00
#SBATCH --output=%x-%j.log
set -euo pipefail
cd "$SLURM_SUBMIT_DIR" # Slurm runs a copy of this file from elsewhere
exec slurm/launch.sh configs/13m/realbef.yaml "$@"
