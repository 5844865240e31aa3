#!/usr/bin/env bash
# Everything that can be measured on one GPU, in about eleven minutes. Each part's output goes to $OUT at once, so that
# running out of time loses one part.
#
#     OUT=runs/gpu SHAKESPEARE=data/tinyshakespeare/input.txt benchmarks/gpu.sh
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-runs/gpu}
mkdir -p "$OUT"
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD:$PWD/benchmarks:${PYTHONPATH:-}

part() { # name, seconds, command
    local name=$1 seconds=$2
    shift 2
    echo "== $name ($SECONDS s)"
    timeout "$seconds" "$@" > "$OUT/$name.log" 2>&1
    echo "   exit $?"
    tail -n 25 "$OUT/$name.log" | cut -c1-1500
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
python3 -m pip list 2> /dev/null | grep -i -E "^(jax|flax|optax|orbax|torch |transformers|grain|tokenizers)" | tr '\n' ';'
echo

part accelerator 150 python3 benchmarks/accelerator.py --attention cudnn
part torch 90 python3 benchmarks/gpu_torch.py
part shakespeare 120 python3 train.py configs/shakespeare_gpu.py \
    --data.train "${SHAKESPEARE:-data/tinyshakespeare/input.txt}" --run-dir "$OUT/shakespeare"
part generate 120 python3 benchmarks/generate.py --models gpt2 llama --batches 1 16 64 --rounds 3 --dtype bfloat16
part attention 110 python3 benchmarks/attention.py
part accelerator_no_remat 60 python3 benchmarks/accelerator.py --attention cudnn --models llama_1b --remat none
part accelerator_xla 150 python3 benchmarks/accelerator.py --attention xla
