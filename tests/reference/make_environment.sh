#!/bin/sh
# Make .venv-reference, the environment of the original groundingdino, which needs an older transformers and torchvision.
# PYTHON= chooses another interpreter.
set -eu
cd "$(dirname "$0")/../.."
"${PYTHON:-python3.11}" -m venv --clear .venv-reference
.venv-reference/bin/pip install --quiet torch==2.13.0
.venv-reference/bin/pip install --quiet --no-deps --requirement tests/reference/requirements.txt
PYTHONPATH=build .venv-reference/bin/python -m tests.reference.original.model
touch .venv-reference/.ready
