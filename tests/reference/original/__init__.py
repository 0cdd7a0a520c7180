"""The original groundingdino package, run without network; for .venv-reference only.

Importing this package makes torchvision importable, which the original imports. PyPI's torchvision is built
for CUDA. Beside a CPU torch its extension does not load, so the operators are missing for which it registers
shape functions on import, and the import fails. Declaring the two is enough: the original uses torchvision to
resize Pillow pictures, and calls no operator.
"""

import ctypes
import importlib.util
import warnings
from importlib.metadata import version
from pathlib import Path

import torch

_OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_MAKERS = (
    "rf-groundingdino",
    "torch",
    "torchvision",
    "transformers",
    "tokenizers",
    "timm",
    "pillow",
    "numpy",
)


def _declare_missing_operators() -> None:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError("torchvision is not installed; run tests/reference/make_environment.sh")
    try:
        ctypes.CDLL(str(Path(spec.origin).with_name("_C.so")))  # loading it registers its operators
    except OSError:
        for name in _OPERATORS:
            torch.library.define(f"torchvision::{name}", _SIGNATURE)


def versions() -> str:
    """Name the packages that decide the answers."""
    return ", ".join(f"{name} {version(name)}" for name in _MAKERS)


# The original and its dependencies are pinned, and call what later versions will drop.
warnings.filterwarnings("ignore", category=FutureWarning)
_declare_missing_operators()
