#!/usr/bin/env bash
# Compiles every GPU kernel for sm_80 and sm_90 with NVIDIA's compiler, which needs no GPU: the one on the library path, else
# that of the Python package nvidia-cuda-nvrtc, installed into a folder that is thrown away. Skipped with a message where
# neither can be had.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! ldconfig -p 2>/dev/null | grep -q libnvrtc.so && ! ls ${LD_LIBRARY_PATH:+${LD_LIBRARY_PATH//:/ }} 2>/dev/null | grep -q libnvrtc.so; then
  folder="$(mktemp -d)"
  trap 'rm -rf "$folder"' EXIT
  if ! { python3 -m venv "$folder/venv" && timeout 300 "$folder/venv/bin/pip" install --quiet --disable-pip-version-check nvidia-cuda-nvrtc; } >"$folder/log" 2>&1; then
    echo "skipped: the compiler for GPU kernels cannot be had here: $(tail -n 1 "$folder/log")"
    exit 0
  fi
  library="$(find "$folder/venv" -name 'libnvrtc.so.*' | head -n 1)"
  if [ -z "$library" ]; then
    echo "skipped: the Python package nvidia-cuda-nvrtc has no libnvrtc for this machine"
    exit 0
  fi
  export LD_LIBRARY_PATH="$(dirname "$library")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
export PARSIMONY_REQUIRE_NVRTC=1
cargo test --release --locked --test kernels -- --exact nvrtc_compiles_every_kernel --nocapture
