#!/usr/bin/env bash
# Trains the small character model of experiments/character-model.toml (some three minutes) and records 65,000 pairs of inputs and outputs
# of its first feed-forward layer where the dataset `layer-pairs` is looked for: $PARSIMONY_DATA_DIR, else the cache.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${PARSIMONY_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/parsimony}
directory=${PARSIMONY_DATA_DIR:-$cache/datasets}
mkdir -p "$directory"
cargo run --release --locked -q -- run experiments/character-model.toml
cargo run --release --locked -q -- record runs/character-model/cells/* --layer decoder.0 --rows 65000 \
    --out "$directory/layer-pairs.parquet"
