#!/usr/bin/env bash
# Everything from a fresh machine to the first comparison: system packages, build, run, plots.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
cargo run --release --locked -- run experiments/quickstart.toml "$@"
cargo run --release --locked -q -- report runs/quickstart
