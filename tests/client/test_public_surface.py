"""What gdino_client offers, and what it does without."""

import inspect
import subprocess
import sys
from pathlib import Path

import gdino_client
from gdino_core.errors import GdinoError

ROOT = Path(__file__).resolve().parents[2]


def test_all_is_the_public_surface_and_nothing_more() -> None:
    names = {
        name for name, value in vars(gdino_client).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert set(gdino_client.__all__) == names
    assert gdino_client.__all__ == sorted(gdino_client.__all__)


def test_every_public_class_and_function_is_documented() -> None:
    for name in set(gdino_client.__all__) - {"ImageSource"}:
        assert inspect.getdoc(getattr(gdino_client, name)), name


def test_every_error_that_detect_documents_is_public() -> None:
    documented = (inspect.getdoc(gdino_client.Client.detect) or "").partition("Raises:")[2]
    named = {line.split(":")[0].strip() for line in documented.splitlines() if ":" in line}
    assert len(named) == 9
    for name in named:
        assert issubclass(getattr(gdino_client, name), GdinoError)


def test_importing_the_client_imports_no_framework_though_they_are_installed() -> None:
    program = """
import sys
import gdino_client, gdino_client.cli
foreign = {"torch", "onnx", "onnxruntime", "openvino", "tokenizers", "transformers", "gdino_build"}
core = sorted(name for name in sys.modules if name.startswith("gdino_core."))
print(sorted(foreign & set(sys.modules)), core)
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'clients'}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.strip() == "[] ['gdino_core.api_keys', 'gdino_core.contract', 'gdino_core.errors']"
