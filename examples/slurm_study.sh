#!/usr/bin/env bash
#SBATCH --job-name=regrow
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
# One SLURM job that carries out a study with its cores. Two minutes before its time is up, and when
# it is preempted, it saves its progress and is queued again, to go on from there.
#
#     sbatch examples/slurm_study.sh generality --scale smoke --out /shared/studies

regrow study "$@" --processes "${SLURM_CPUS_PER_TASK:-1}" &
study=$!

save_and_queue_again() {
  kill -TERM "$study" 2>/dev/null
  wait "$study" # it saves within seconds
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}
trap save_and_queue_again USR1 TERM

wait "$study"
