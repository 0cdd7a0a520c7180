#!/bin/sh
# Make .venv-audit/runtime, what is installed to serve and to ask and nothing else, and .venv-audit/tools, which look at it.
set -eu
python="${PYTHON:-python3.11}"
"$python" -m venv --clear .venv-audit/tools
.venv-audit/tools/bin/pip install --quiet pip-audit==2.10.1 pip-licenses==5.5.5 cyclonedx-bom==7.5.0
"$python" -m venv --clear --without-pip .venv-audit/runtime
pip() { .venv-audit/tools/bin/pip --python .venv-audit/runtime/bin/python "$@"; }
pip install --quiet '.[server]'
pip install --quiet --no-deps nvidia-pytriton==0.7.0
pip uninstall --quiet --yes groundingdino-triton  # no registry knows it
touch .venv-audit/.ready
