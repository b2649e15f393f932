#!/usr/bin/env bash
# Hands a search to a Ray cluster that runs already, through its dashboard, and follows it.
# The folder with the job file and your own code travels with it (100 MiB at most): keep data and runs out of it.
# Needs ray[default] here and autoprune on every node of the cluster.
set -euo pipefail

DASHBOARD=http://127.0.0.1:8265   # CHANGE 1: the dashboard; `ssh -L 8265:localhost:8265 HEAD` brings it here
FOLDER=./my_job                   # CHANGE 2: holds job.yaml, and the modules that it names
RUN=/mnt/shared/runs/search       # CHANGE 3: the run directory, on storage that outlives the cluster

command="autoprune search job.yaml --run-dir $RUN --engine ray --address auto --progress plain"
if [[ "${1:-}" == resume ]]; then
    command="autoprune resume $RUN --engine ray --address auto --progress plain"
fi
# shellcheck disable=SC2086  # the command is words
exec ray job submit --address "$DASHBOARD" --working-dir "$FOLDER" -- $command
