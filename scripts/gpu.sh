#!/usr/bin/env bash
# Compares the GPU backend with the CPU's, every operation and every model, trains three experiments on both and prints tables;
# skipped with a message where there is no GPU. Needs Rust, the NVIDIA driver, libnvrtc and, for cuBLAS's products, libcublas.
# --help says what it takes. The program runs without Rust too: carry target/release/gpu_comparison to where the GPU is.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo run --release --locked --manifest-path examples/gpu_comparison/Cargo.toml -- "$@"
