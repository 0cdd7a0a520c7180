"""The accuracy of one profile, as out/<profile>/accuracy.json has it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from gdino_build.accuracy.scoring import Accuracy
from gdino_build.engine import sha256_of
from gdino_build.precision import GRAPHS
from gdino_build.whole_file import write_json
from gdino_core.errors import ExportError

RECORD_FILE_NAME = "accuracy.json"


@dataclass(frozen=True, kw_only=True)
class AccuracyRecord:
    """One measurement.

    Attributes:
        profile: its name.
        precision: of its graphs.
        dataset_sha256: of the annotation file.
        scenes: number of pictures.
        ap: average precision in points, 0 to 100, as are the next three.
        ap50: at IoU 0.50.
        ap75: at IoU 0.75.
        ar: average recall with 100 detections a picture.
        onnx_sha256: of both graphs, by model.
        latency_ms: median of single requests; None where that would say nothing, as of an emulation.
        peak_bytes: that the server's processes held at most during these requests; None likewise.
        through: what computed and what it was asked through.
        hardware: that it ran on.
    """

    profile: str
    precision: str
    dataset_sha256: str
    scenes: int
    ap: float
    ap50: float
    ap75: float
    ar: float
    onnx_sha256: Mapping[str, str]
    latency_ms: float | None
    peak_bytes: int | None
    through: str
    hardware: str

    def describe(self) -> str:
        """The figures in one line."""
        return f"{self.scenes} pictures: AP {self.ap:.2f}  AP50 {self.ap50:.2f}  AP75 {self.ap75:.2f}  AR {self.ar:.2f}"


def points(accuracy: Accuracy) -> dict[str, float]:
    """AP, AP50, AP75 and AR in points, 0 to 100, to the thousandth."""
    return {name: round(100 * getattr(accuracy, name), 3) for name in ("ap", "ap50", "ap75", "ar")}


def write_record(record: AccuracyRecord, folder: Path) -> Path:
    """Write accuracy.json into out/<profile>; it appears only when it is whole."""
    path = folder / RECORD_FILE_NAME
    write_json(path, asdict(record))
    return path


def read_records(out: Path) -> Iterator[AccuracyRecord]:
    """All records below out/; a file that is none is passed over, for it can prove nothing."""
    for path in sorted(out.glob(f"*/{RECORD_FILE_NAME}")):
        try:
            yield AccuracyRecord(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue


def graphs_sha256(graphs: Path) -> dict[str, str]:
    """SHA-256 of both ONNX files of a folder, by model."""
    _check_graphs(graphs)
    return {name: sha256_of(graphs / f"{name}.onnx") for name in GRAPHS}


def graphs_bytes(graphs: Path) -> int:
    """Bytes of both ONNX files of a folder."""
    _check_graphs(graphs)
    return sum((graphs / f"{name}.onnx").stat().st_size for name in GRAPHS)


def _check_graphs(graphs: Path) -> None:
    for name in GRAPHS:
        path = graphs / f"{name}.onnx"
        if not path.is_file():
            raise ExportError(f"{path} does not exist", fix="run the stages before this one, or make repository")
