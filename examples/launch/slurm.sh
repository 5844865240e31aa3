#!/bin/bash
# Trains on nodes of GPUs under Slurm: sbatch examples/launch/slurm.sh CONFIG.py [--dotted.overrides]
# One process for each GPU, as JAX expects under Slurm. The job is queued again when its time is over, and goes on.
#SBATCH --job-name=jaxlm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# five minutes before the end every process is asked to save and stop
#SBATCH --signal=TERM@300

export XLA_PYTHON_CLIENT_MEM_FRACTION=.9 # JAX's own default is .75
export NCCL_NVLS_ENABLE=1                # reductions in the switch of NVLink
export CUDA_DEVICE_MAX_CONNECTIONS=1     # on Hopper: kernels start in the order in which XLA gives them

srun --kill-on-bad-exit=1 jaxlm train "$@" --distributed.enable --compute.flags auto --run-dir "runs/${SLURM_JOB_NAME}"
code=$?
# 143: stopped and saved; the same command resumes
if [ "$code" -eq 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
