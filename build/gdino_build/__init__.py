"""The build system: checkpoint to ONNX to engine to Triton model repository, one module a stage."""
