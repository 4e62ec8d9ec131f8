#!/usr/bin/env bash
# Everything from a fresh machine to passed tests. Tests on real data need PARSIMONY_DATA_DIR and are skipped with a
# message without it; with PARSIMONY_REQUIRE_DATA=1 they fail instead.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
export OPENBLAS_NUM_THREADS=1
cargo test --release --locked --workspace "$@"
