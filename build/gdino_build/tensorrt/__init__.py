"""Compile ONNX graphs into plans with TensorRT or TensorRT-RTX; the third-party module `tensorrt` is another one."""
