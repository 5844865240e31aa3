#!/usr/bin/env bash
# Refines the WARC files of a folder that all nodes see, as Slurm jobs; run it on a login node.
#   bash examples/refine_on_slurm.sh /shared/cc/CC-MAIN-2026-21 /shared/refined/2026-21 cpu
# It submits one array job for each phase; a later one waits for an earlier one. The same command again submits only
# what is not done. The last job writes report.html.
set -euo pipefail
pages="$1" out="$2" partition="$3"
# a task for every 10 or so WARC files (1 GB each): some hours of one core
files=$(find "$pages" -name '*.warc.gz' | wc -l)
jaxlm refine fineweb "$pages" "$out" \
  --tasks "$(( (files + 9) / 10 ))" --workers 2000 \
  --executor slurm --slurm.partition "$partition" --slurm.time 20:00:00 --slurm.memory 4 \
  --slurm.environment "source $(dirname "$(command -v jaxlm)")/activate"
