"""Start the process of one runner of ours; `contenders` writes the command."""

import argparse
from pathlib import Path

from gdino_build.gpu_check.runner import DEVICES, Runner
from gdino_build.gpu_check.worker import serve
from gdino_build.model import ARCHITECTURES


def main() -> None:
    """Load the runner that the arguments name, and answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("torch", "onnxruntime", "tensorrt", "tensorrt-rtx"))
    parser.add_argument("--device", choices=DEVICES, required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--architecture", choices=ARCHITECTURES, help="of the weights, for torch")
    parser.add_argument("--files", type=Path, required=True, help=".safetensors, or the folder of graphs or plans")
    arguments = parser.parse_args()
    serve(lambda: _load(arguments))


def _load(arguments: argparse.Namespace) -> Runner:
    # Each imports what another environment may lack.
    if arguments.kind == "torch":
        from gdino_build.gpu_check.torch_runner import TorchRunner

        architecture = ARCHITECTURES[arguments.architecture]
        return TorchRunner(architecture, arguments.files, arguments.precision, arguments.device)
    if arguments.kind == "onnxruntime":
        from gdino_build.gpu_check.onnxruntime_runner import OnnxRuntimeRunner

        return OnnxRuntimeRunner(arguments.files, arguments.device)
    from gdino_build.gpu_check.tensorrt_runner import TensorRtRunner

    return TensorRtRunner(arguments.files, arguments.kind)


if __name__ == "__main__":
    main()
