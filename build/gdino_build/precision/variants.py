"""Write the variant of a precision from the cleaned graphs; its record tells what it is made of.

fp32    the cleaned graphs as they are
fp16    types of FP16, but for what `policy` keeps
bf16    types of BF16, likewise
int8    QDQ around products with weights; tables of weights that are looked up in FP16; the rest FP32, or FP16 with
        the policy's list where the runtime computes in it
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx
import onnx_graphsurgeon as gs

from gdino_build.clean import save_graph
from gdino_build.precision import GRAPHS, PRECISIONS
from gdino_build.precision.lowering import lower_precision
from gdino_build.precision.policy import is_lowered
from gdino_build.precision.quantisation import quantise
from gdino_build.whole_file import write_json
from gdino_core.errors import ExportError

RECORD_FILE_NAME = "variant.json"
INT8_RESTS = ("fp32", "fp16")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What a variant was made of; lies beside the graphs as RECORD_FILE_NAME.

    Attributes:
        precision: one of PRECISIONS.
        int8_rest: what of an INT8 variant is not integer, one of INT8_RESTS; empty for others.
        int8_products: how many products of each graph are integer.
        calibration: how the ranges of INT8 were found; empty for others.
    """

    precision: str
    int8_rest: str
    int8_products: Mapping[str, int]
    calibration: Mapping[str, object]


def write_variant(
    cleaned: Path,
    folder: Path,
    precision: str,
    *,
    thresholds: Mapping[str, Mapping[str, float]] | None = None,
    int8_rest: str = "fp32",
    calibration: Mapping[str, object] | None = None,
) -> Variant:
    """Write both graphs of a variant, and its record last.

    Args:
        cleaned: folder of the cleaned graphs.
        folder: where to.
        precision: one of PRECISIONS.
        thresholds: for int8, of the activations of each graph; see `calibration`.
        int8_rest: for int8, what the rest computes in, one of INT8_RESTS.
        calibration: for int8, how the thresholds were found, for the record.

    Raises:
        ExportError: no such precision; int8 without thresholds, or thresholds without int8.
    """
    if precision not in PRECISIONS or int8_rest not in INT8_RESTS:
        raise ExportError(
            f"there is no variant {precision} with the rest in {int8_rest}",
            fix=f"choose one of {', '.join(PRECISIONS)}, and of {', '.join(INT8_RESTS)} for the rest of int8",
        )
    if (precision == "int8") != (thresholds is not None):
        raise ExportError("int8, and nothing else, needs the ranges of activations", fix="calibrate first")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD_FILE_NAME).unlink(missing_ok=True)
    int8_products = {}
    for name in GRAPHS:
        source, target = cleaned / f"{name}.onnx", folder / f"{name}.onnx"
        if precision == "fp32":
            _link_or_copy(source, target)
            continue
        graph = gs.import_onnx(onnx.load(source))
        if thresholds is not None:
            int8_products[name] = quantise(graph, thresholds[name])
        _lower_rest(graph, precision, int8_rest)
        save_graph(graph, target)
    variant = Variant(
        precision=precision,
        int8_rest=int8_rest if precision == "int8" else "",
        int8_products=int8_products,
        calibration=calibration or {},
    )
    write_json(folder / RECORD_FILE_NAME, asdict(variant))
    return variant


def read_variant(folder: Path) -> Variant:
    """Read the record of a variant.

    Raises:
        ExportError: there is none, or it is damaged.
    """
    try:
        return Variant(**json.loads((folder / RECORD_FILE_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ExportError(
            f"{folder / RECORD_FILE_NAME} cannot be read: {error}", fix="run gdino-build precision"
        ) from error


def _lower_rest(graph: gs.Graph, precision: str, int8_rest: str) -> None:
    if precision in ("fp16", "bf16"):
        lower_precision(graph, precision, lambda node: is_lowered(node, precision))
    elif int8_rest == "fp16":
        lower_precision(graph, "fp16", lambda node: is_lowered(node, "fp16"))
    else:  # of the rest, only the tables weigh: words, positions, queries
        lower_precision(graph, "fp16", lambda node: node.op == "Gather")


def _link_or_copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
