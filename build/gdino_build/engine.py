"""Convert an ONNX graph to the engine that a CPU serves: OpenVINO's own format, types and weights as they are."""

import hashlib
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_graphsurgeon as gs
import openvino as ov
from google.protobuf.message import DecodeError

from gdino_build.clean import forget_inferred
from gdino_build.deformable import fuse_deformable_attentions
from gdino_build.exact_passes import read_graph
from gdino_build.openvino_deformable import deformable_attention_extension
from gdino_core.errors import ExportError
from gdino_core.openvino_engine import OPERATOR_SUFFIX, openvino_core


@dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """What an engine was made from; it lies beside the engine as .json and goes into the manifest.

    Attributes:
        onnx_sha256: of the cleaned graph.
        openvino_version: that converted it.
        build_seconds: that the conversion took.
    """

    onnx_sha256: str
    openvino_version: str
    build_seconds: float


@dataclass(frozen=True, kw_only=True)
class EngineTensor:
    """An input or output of an engine.

    Attributes:
        type_name: OpenVINO's name of the element type, such as "f32".
        dims: sizes after the batch axis, -1 where any size will do.
    """

    type_name: str
    dims: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class EngineInterface:
    """Inputs and outputs of an engine by name."""

    inputs: dict[str, EngineTensor]
    outputs: dict[str, EngineTensor]


def onnx_to_openvino(onnx_path: Path, engine_path: Path, operator: Path | None = None) -> EngineRecord:
    """Convert an ONNX file to an OpenVINO engine.

    Args:
        onnx_path: a cleaned graph.
        engine_path: the .xml to write; its weights go beside it as .bin, its record as .json. The .xml appears last,
            and only when everything is whole.
        operator: the library with the compiled deformable attention, which a detector then needs beside it as
            .operator.so; None does without.

    Raises:
        ExportError: there is no such file, or OpenVINO cannot read it.
    """
    if not onnx_path.is_file():
        raise ExportError(f"{onnx_path} does not exist", fix="run the stages before this one: export, clean")
    started = time.monotonic()
    try:
        # Not ov.convert_model: it also optimises, which the server does again when it compiles for its processor,
        # takes ten times as long, and may merge a tensor of the contract with a neighbour of another name.
        graph = read_graph(onnx_path)
        attentions = fuse_deformable_attentions(graph)
        model = _reader(operator).read_model(_serialised(graph))
    except (RuntimeError, DecodeError) as error:
        raise ExportError(
            f"OpenVINO {ov.__version__} cannot read {onnx_path}: {error}",
            fix="look for an operator that it lacks: gdino-build inspect lists the operators",
        ) from error
    engine_path.parent.mkdir(parents=True, exist_ok=True)
    partial = engine_path.with_name(f"{engine_path.stem}.partial.xml")
    ov.save_model(model, partial, compress_to_fp16=False)
    record = EngineRecord(
        onnx_sha256=sha256_of(onnx_path),
        openvino_version=ov.__version__,
        build_seconds=round(time.monotonic() - started, 1),
    )
    partial_record = partial.with_suffix(".json")
    partial_record.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
    library = engine_path.with_suffix(OPERATOR_SUFFIX)
    if attentions and operator:
        shutil.copyfile(operator, partial.with_suffix(OPERATOR_SUFFIX))
        os.replace(partial.with_suffix(OPERATOR_SUFFIX), library)
    else:
        library.unlink(missing_ok=True)
    for suffix in (".bin", ".json", ".xml"):
        os.replace(partial.with_suffix(suffix), engine_path.with_suffix(suffix))
    return record


def read_record(engine_path: Path) -> EngineRecord:
    """Read what an engine was made from.

    Raises:
        ExportError: the engine or its record is missing or damaged.
    """
    path = engine_path.with_suffix(".json")
    try:
        return EngineRecord(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ExportError(f"{path} cannot be read: {error}", fix="run gdino-build engine") from error


def engine_interface(engine_path: Path) -> EngineInterface:
    """Read the inputs and outputs of an engine without compiling it.

    Raises:
        ExportError: OpenVINO cannot read it.
    """
    try:
        model = openvino_core(engine_path).read_model(engine_path)
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot read {engine_path}: {error}", fix="run gdino-build engine") from error
    return EngineInterface(
        inputs={port.any_name: _tensor(port) for port in model.inputs},
        outputs={port.any_name: _tensor(port) for port in model.outputs},
    )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _serialised(graph: gs.Graph) -> bytes:
    forget_inferred(graph)
    serialised: bytes = gs.export_onnx(graph).SerializeToString()
    return serialised


def _reader(operator: Path | None) -> ov.Core:
    core = ov.Core()
    core.add_extension(deformable_attention_extension(operator))
    return core


def _tensor(port: Any) -> EngineTensor:
    shape = port.get_partial_shape()
    dims = [-1 if dim.is_dynamic else dim.get_length() for dim in shape]
    return EngineTensor(type_name=port.get_element_type().get_type_name(), dims=tuple(dims[1:]))
