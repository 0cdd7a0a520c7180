"""Count the work of a graph of known sizes, stage by stage: multiply-adds, bytes of weights, bytes of tensors written.

Numbers follow from shapes alone; nothing runs. Stages are told by the names of nodes, which are those of modules.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx_graphsurgeon as gs
from onnx.helper import tensor_dtype_to_np_dtype
from onnx_graphsurgeon.exporters.onnx_exporter import dtype_to_onnx

from gdino_build.exact_passes import read_graph
from gdino_build.small_operators import CORES, MOVERS, VIEWS
from gdino_build.specialise import specialise_graph
from gdino_build.work_stages import STAGES, stage_of

_TAPS = 4  # of a bilinear sample


@dataclass(frozen=True, kw_only=True)
class Work:
    """Work of one stage, or of all.

    Attributes:
        products: multiply-adds of matrix products and convolutions; each is two FLOPs.
        samples: multiply-adds of bilinear sampling.
        weight_bytes: constants that it reads, each counted where it is read first.
        fused_bytes: what products, norms, samplings and movers write: all that is left if a compiler fuses everything
            that goes value by value.
        unfused_bytes: what all operators write, but for views.
    """

    products: int = 0
    samples: int = 0
    weight_bytes: int = 0
    fused_bytes: int = 0
    unfused_bytes: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(**{name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__})


def count_file(path: Path, sizes: dict[str, int], *, stage: str | None = None) -> dict[str, Work]:
    """Count the work of a cleaned graph at concrete sizes.

    Args:
        path: of a cleaned graph.
        sizes: batch and tokens, and for a detector height and width.
        stage: that all of it belongs to; by default, nodes tell theirs by name.
    """
    graph = specialise_graph(read_graph(path), sizes)
    return count_graph(graph, stage=stage)


def count_graph(graph: gs.Graph, *, stage: str | None = None) -> dict[str, Work]:
    """Count the work of a graph whose shapes are noted as numbers, by stage in the order of STAGES."""
    found: defaultdict[str, Work] = defaultdict(Work)
    read: set[int] = set()
    for node in graph.toposort().nodes:
        constants = [one for one in node.inputs if isinstance(one, gs.Constant) and id(one) not in read]
        read.update(id(one) for one in constants)
        written = sum(_bytes(tensor) for tensor in node.outputs)
        work = Work(
            products=_products(node),
            samples=_TAPS * math.prod(node.outputs[0].shape) if node.op == "GridSample" else 0,
            weight_bytes=sum(one.values.nbytes for one in constants),
            fused_bytes=written if node.op in CORES or node.op in MOVERS else 0,
            unfused_bytes=0 if node.op in VIEWS else written,
        )
        found[stage or stage_of(node.name)] += work
    return {name: found[name] for name, _ in STAGES if name in found}


def total(works: Iterable[Work]) -> Work:
    """The sum."""
    return sum(works, start=Work())


def _products(node: gs.Node) -> int:
    if node.op == "MatMul":
        return int(math.prod(node.outputs[0].shape) * node.inputs[0].shape[-1])
    if node.op == "Gemm":
        return int(math.prod(node.outputs[0].shape) * node.inputs[0].shape[0 if node.attrs.get("transA") else 1])
    if node.op == "Conv":
        return int(math.prod(node.outputs[0].shape) * math.prod(node.inputs[1].shape[1:]))
    return 0


def _bytes(tensor: gs.Tensor) -> int:
    return int(math.prod(tensor.shape) * tensor_dtype_to_np_dtype(dtype_to_onnx(tensor.dtype)).itemsize)
