#!/usr/bin/env bash
# Compares every operation of the GPU backend with the CPU's and prints a table; skipped with a message where there is no
# GPU. Needs Rust, the NVIDIA driver, libnvrtc and, for cuBLAS's products, libcublas. Arguments: rounds, columns, GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo run --release --locked --manifest-path examples/gpu_comparison/Cargo.toml -- "$@"
