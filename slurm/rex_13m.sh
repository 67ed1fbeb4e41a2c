#!/usr/bin/env bash
# Pretrain ReX-VLM on the 13M mix (paper, section 4) on a node of 8 GPUs, from the repository's folder; more
# nodes are faster and cost more GPU-hours (`relvlm plan --config configs/13m/rex_vlm.yaml --device h200 --scaling`):
#     sbatch slurm/rex_13m.sh
# Options of sbatch go before the script, those of relvlm/train.py after it; a --config there replaces the script's:
#     sbatch --nodes 2 --ntasks-per-node 1 --gpus-per-node 0 slurm/rex_13m.sh --config configs/mini/rex_vlm.yaml steps=20
#SBATCH --job-name=rex_vlm-13m
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=7-00:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=USR1@120
exec "$SLURM_SUBMIT_DIR/slurm/launch.sh" configs/13m/rex_vlm.yaml "$@"
