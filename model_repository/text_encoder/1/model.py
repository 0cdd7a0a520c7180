"""Triton adapter: all that it does is the same for every OpenVINO engine of the repository."""

from gdino_core.openvino_adapter import OpenVinoModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
