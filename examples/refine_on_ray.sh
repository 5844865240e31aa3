#!/usr/bin/env bash
# Refines the WARC files of a folder that all machines see on a Ray cluster; run it on the head node, after
#   ray start --head            # there
#   ray start --address HEAD:6379   # on every other machine, with jaxlm[refine] installed
# then
#   bash examples/refine_on_ray.sh /shared/cc/CC-MAIN-2026-21 /shared/refined/2026-21 512
# The same command goes on where it stopped.
set -euo pipefail
pages="$1" out="$2" cores="$3"
files=$(find "$pages" -name '*.warc.gz' | wc -l)
jaxlm refine fineweb "$pages" "$out" \
  --tasks "$(( (files + 9) / 10 ))" --workers "$cores" \
  --executor ray --ray.address auto --ray.memory 4
