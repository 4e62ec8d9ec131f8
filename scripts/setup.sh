#!/usr/bin/env bash
# Installs what build and tests need beyond Rust and a C compiler: OpenBLAS with its headers, and a C++ compiler, with which
# tests run GPU kernels on the CPU (Debian, Ubuntu).
set -euo pipefail
if ! command -v "${CXX:-c++}" >/dev/null && command -v apt-get >/dev/null; then
  as_root=""
  [ "$(id -u)" = 0 ] || as_root="sudo"
  $as_root apt-get update -q
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y g++
fi
if ! printf '#include <cblas.h>\nint main(void){return 0;}\n' | cc -x c - -o /dev/null -lopenblas 2>/dev/null; then
  if ! command -v apt-get >/dev/null; then
    echo "setup: OpenBLAS with its headers was not found, and this is neither Debian nor Ubuntu." >&2
    echo "  Install your system's package (openblas-devel, openblas, ...) and run this again." >&2
    exit 1
  fi
  as_root=""
  [ "$(id -u)" = 0 ] || as_root="sudo"
  $as_root apt-get update -q
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y libopenblas-dev pkg-config
fi
