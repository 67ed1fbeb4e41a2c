#!/usr/bin/env bash
# Pretrain ALBEF on the 13M mix, as slurm/rex_13m.sh does ReX-VLM:
#     sbatch slurm/albef_13m.sh
#SBATCH --job-name=albef-13m
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=7-00:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=USR1@120
exec "$SLURM_SUBMIT_DIR/slurm/launch.sh" configs/13m/albef.yaml "$@"
