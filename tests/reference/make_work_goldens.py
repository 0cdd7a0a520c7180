"""Count the work of the original and of our module in PyTorch, by stage; runs in .venv-reference.

Both run once on a whole picture and a caption, operator by operator. FLOPs are those of torch.utils.flop_counter; bytes
are those of every tensor that an operator writes, views left out.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from gdino_build.model import ARCHITECTURES, GroundingDino
from gdino_build.work_stages import STAGES, stage_of
from tests.reference.original import versions
from tests.reference.original.model import build_original
from tests.reference.original.text import build_tokenizer, preprocess_caption, text_masks

_ARCHITECTURE = {"swint": "swint-ogc", "swinb": "swinb-cogcoor", "demo": "demo"}
_CAPTION = "cat . dog . bird . red circle . blue star . sun ."  # 16 tokens


class WorkCounter(TorchDispatchMode):
    """Adds up FLOPs and written bytes of every operator, by the stage of the module that calls it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.flops: defaultdict[str, int] = defaultdict(int)
        self.written_bytes: defaultdict[str, int] = defaultdict(int)
        self._running = [""]  # path of the module that runs, after those that called it
        for path, module in model.named_modules():
            module.register_forward_pre_hook(lambda _module, _inputs, path=path: self._running.append(path))
            module.register_forward_hook(lambda _module, _inputs, _output: self._running.pop() and None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        stage = stage_of(self._running[-1])
        if func._overloadpacket in flop_registry:
            self.flops[stage] += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        read = {one.untyped_storage().data_ptr() for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        for one in tree_leaves(out):
            if isinstance(one, Tensor) and (func._schema.is_mutable or one.untyped_storage().data_ptr() not in read):
                self.written_bytes[stage] += one.nbytes
        return out

    def by_stage(self) -> dict[str, dict[str, int]]:
        """FLOPs and bytes, in the order of the data."""
        return {
            name: {"flops": self.flops[name], "written_bytes": self.written_bytes[name]}
            for name, _ in STAGES
            if self.written_bytes[name]
        }


@contextmanager
def counting(model: nn.Module) -> Iterator[WorkCounter]:
    """Count what runs inside; attention is computed in steps that can be counted."""
    counter = WorkCounter(model)
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        yield counter


def main() -> None:
    """Count both and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(_ARCHITECTURE), required=True)
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), required=True)
    parser.add_argument("--out", type=Path, required=True, help="the .json to write")
    arguments = parser.parse_args()

    height, width = arguments.size
    masks = text_masks(preprocess_caption(_CAPTION), build_tokenizer())
    original = build_original(arguments.model)
    with counting(original) as counter:
        original(torch.zeros(1, 3, height, width), captions=[preprocess_caption(_CAPTION)])
    found: dict[str, object] = {
        "made_with": versions(),
        "height": height,
        "width": width,
        "tokens": len(masks.input_ids),
        "batch": 1,
        "original": counter.by_stage(),
        "module": _count_module(arguments.model, height, width, len(masks.input_ids)),
    }
    arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _count_module(model: str, height: int, width: int, tokens: int) -> dict[str, dict[str, int]]:
    module = GroundingDino(ARCHITECTURES[_ARCHITECTURE[model]]).eval().requires_grad_(False)
    ids = torch.arange(tokens, dtype=torch.int32)[None]
    with counting(module) as counter:
        features = module.encode_text(ids, ids, ids)
        pixels = torch.zeros(1, 3, height, width, dtype=torch.uint8)
        module.detect(pixels, torch.tensor([[height, width]], dtype=torch.int32), features, ids, ids)
    return counter.by_stage()


if __name__ == "__main__":
    main()
