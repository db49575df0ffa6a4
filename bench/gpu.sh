#!/usr/bin/env bash
# Weightloom on WebGPU beside PyTorch on the same GPU, as a table: bench/gpu.sh [arguments of bench/compare.mjs]
#
# Runs in under eight minutes on a bare machine that has the built repository, a driver with Vulkan and a Python with
# PyTorch (PYTHON, else python3). Where a folder .gpu was packed with Node and a Vulkan loader, its `enter` sets them up.
# Writes bench/results/gpu.md and gpu.jsonl, and copies them to OUT where that is set. Ends with errors of products.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -e .gpu/enter ]; then . .gpu/enter; fi
export PYTHON=${PYTHON:-python3}
node bench/compare.mjs --backend webgpu --peers bench/gpu --threads 1 --rounds 1 --budget 330 --name gpu "$@"
if [ -n "${OUT:-}" ]; then cp bench/results/gpu.md bench/results/gpu.jsonl "$OUT"; fi
# How inexact each precision is on this GPU.
node bench/precision.mjs
