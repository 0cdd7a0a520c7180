"""A server and a repository of different versions do not work together silently."""

import subprocess
import sys

import pytest

from gdino_core.contract import CONTRACT_VERSION, check_contract_version
from gdino_core.errors import ConfigError


def test_the_version_in_use_is_accepted() -> None:
    check_contract_version({"contract_version": str(CONTRACT_VERSION), "short_side": "800"})


@pytest.mark.parametrize("parameters", [{}, {"contract_version": "0"}, {"contract_version": "one"}])
def test_another_version_is_refused_with_both_versions_named(parameters: dict[str, str]) -> None:
    found = parameters.get("contract_version", "none")
    with pytest.raises(ConfigError, match=f"contract_version {found}, .* speaks {CONTRACT_VERSION}"):
        check_contract_version(parameters)


def test_the_core_needs_no_deep_learning_framework() -> None:
    program = """
import importlib, pkgutil, sys
for name in ("torch", "onnx", "onnxruntime", "openvino", "tritonclient", "transformers"):
    sys.modules[name] = None  # importing it now fails
import gdino_core
for module in pkgutil.iter_modules(gdino_core.__path__):
    print(importlib.import_module(f"gdino_core.{module.name}").__name__)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    names = {"contract", "detections", "errors", "image", "prompt", "settings"}
    assert {f"gdino_core.{name}" for name in names} <= set(result.stdout.split())
