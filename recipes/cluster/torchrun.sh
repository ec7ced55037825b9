#!/usr/bin/env bash
# The same command on every machine: HOST=... NODES=... GPUS=... bash recipes/cluster/torchrun.sh CONFIG [OVERRIDES]
set -euo pipefail
: "${HOST:?set HOST to a machine that all can reach}"
NODES=${NODES:-1} GPUS=${GPUS:-1} PORT=${PORT:-29500}
exec torchrun --nnodes="$NODES" --nproc-per-node="$GPUS" --rdzv-backend=c10d --rdzv-endpoint="$HOST:$PORT" \
    --rdzv-id="${RUN_ID:-asr}" -m asr train "$@" "trainer.nodes=$NODES" "trainer.devices=$GPUS"
