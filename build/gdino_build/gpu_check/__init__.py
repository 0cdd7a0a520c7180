"""Compare and time, on one NVIDIA GPU, whatever there can run the model: TensorRT, ONNX Runtime, PyTorch, the original.

Each runner has a process of its own (`worker`), so that one that fails takes none with it, and the original can live in
its own environment. It first has the GPU alone: that gives its memory and its differences to the golden. Then all run
in turn: that gives latencies that may be compared. With the device "cpu" ONNX Runtime, PyTorch and the original go
through the same code.
"""
