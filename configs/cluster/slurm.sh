#!/usr/bin/env bash
# One search on several nodes of a SLURM cluster: sbatch configs/cluster/slurm.sh
# Sent twice with the same RUN it goes on where it was stopped: at the time limit, or when the job was requeued.
#SBATCH --job-name=autoprune
#SBATCH --nodes=4                  # CHANGE 1: nodes, and what each one has
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail

source "$HOME/venv/bin/activate"   # CHANGE 2: an environment with autoprune that all nodes see
JOB=$HOME/my_job/job.yaml RUN=$HOME/runs/search   # CHANGE 3: the job file and the run directory, on shared storage

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000))
address="$(srun --nodes=1 --ntasks=1 -w "$head" hostname -I | awk '{print $1}'):$port"

srun --nodes=1 --ntasks=1 --overlap -w "$head" ray start --head --port="$port" --dashboard-host=127.0.0.1 \
    --num-cpus="$SLURM_CPUS_PER_TASK" --block &
until ray health-check --address "$address" 2>/dev/null; do sleep 2; done
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --overlap --exclude="$head" \
        ray start --address "$address" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
    sleep 20   # workers that come later are used, too, where --workers counts on them
fi

workers=$((SLURM_JOB_NUM_NODES * SLURM_CPUS_PER_TASK))
if [[ -f "$RUN/run.json" ]]; then
    autoprune resume "$RUN" --engine ray --address "$address" --workers "$workers" --progress plain
else
    autoprune search "$JOB" --run-dir "$RUN" --engine ray --address "$address" --workers "$workers" --progress plain
fi
