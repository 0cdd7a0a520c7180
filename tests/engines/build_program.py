"""A program that compiles a graph as `make engines` does, for tests that stop it or watch what it prints."""

BUILD = """
import sys
from pathlib import Path
from gdino_build.tensorrt.flavour import find_flavour
from gdino_build.tensorrt.plan import onnx_to_plan
from gdino_core.errors import GdinoError
from tests.engines.settings import make_settings
folder = Path(sys.argv[2])
try:
    onnx_to_plan(Path(sys.argv[1]), folder / "detector.plan", make_settings(folder), find_flavour("tensorrt-rtx"))
except KeyboardInterrupt:
    sys.exit(130)
except GdinoError as error:
    sys.exit(str(error))
"""
