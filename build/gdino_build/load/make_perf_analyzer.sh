#!/bin/sh
# Make .venv-perf, the environment of perf_analyzer. The last release that old C libraries run is 2.46.0; it is linked to
# libb64, which comes from Debian, and to a CUDA runtime, which comes from PyPI and needs no GPU.
set -eu
"${PYTHON:-python3.11}" -m venv --clear .venv-perf
.venv-perf/bin/pip install --quiet --no-deps tritonclient==2.46.0 nvidia-cuda-runtime-cu12==12.9.79
if ! ldconfig -p | grep -q libb64.so.0d; then
    "$(dirname "$0")/../unpack_debian.sh" .venv-perf/debian "install the Debian package libb64-0d" libb64-0d
fi
touch .venv-perf/.ready
