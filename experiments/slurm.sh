#!/usr/bin/env bash
# A training on all GPUs of a job, for each run of a sweep, through preemption and time limits.
#
#   multigrid generate experiments/poisson.yaml                                # the data, once
#   sbatch --array=0-4 experiments/slurm.sh experiments/poisson.yaml --seeds 5
#   sbatch --array=0-9 experiments/slurm.sh experiments/poisson.yaml --set model.width=32,64 --seeds 5
#   multigrid sweep experiments/poisson.yaml --set model.width=32,64 --seeds 5 --dry-run  # numbers; table
#
# Slurm warns the processes with SIGUSR1 two minutes ahead; they save within a step and end with
# status 75, upon which the job goes back into the queue, and --resume goes on from there.
#
#SBATCH --job-name=multigrid
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%A_%a.out
set -euo pipefail

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export WORLD_SIZE=$SLURM_NTASKS
export LOCAL_WORLD_SIZE=$((SLURM_NTASKS / SLURM_JOB_NUM_NODES))
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

status=0
# srun and not torchrun, as signals then reach the processes and their status comes back
# shellcheck disable=SC2016
srun --kill-on-bad-exit=0 bash -c 'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID exec "$@"' task \
  "${PYTHON:-python}" -m multigrid sweep "$@" --task "${SLURM_ARRAY_TASK_ID:-0}" || status=$?
if [ "$status" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
