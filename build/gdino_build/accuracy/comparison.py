"""Measure all precisions of one model on one data set, and the original beside them."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdino_build.accuracy.answers import AnswerFile
from gdino_build.accuracy.asking import answer_all
from gdino_build.accuracy.dataset import CocoDataset
from gdino_build.accuracy.emulated import THROUGH as EMULATED
from gdino_build.accuracy.emulated import emulated_header, emulating
from gdino_build.accuracy.evaluation import (
    ANSWERS_FILE_NAME,
    IN_FLIGHT,
    LATENCY_ROUNDS,
    file_contender,
    latency_sample,
    make_record,
)
from gdino_build.accuracy.latency import Contender, interleaved_latency_ms
from gdino_build.accuracy.original import THROUGH as ORIGINAL
from gdino_build.accuracy.original import Original, OriginalProcess, evaluate_original, original_running
from gdino_build.accuracy.record import AccuracyRecord, graphs_bytes, graphs_sha256, points, write_record
from gdino_build.accuracy.table import Measured, Table, make_table
from gdino_build.accuracy.through_server import Served, check_labels, served_header, served_onnx_sha256, serving
from gdino_build.machine import describe_hardware
from gdino_build.model import DEMO
from gdino_build.profile import Profile
from gdino_core.errors import ConfigError

_ORIGINAL = "original"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One precision that was built.

    Attributes:
        profile: its profile.
        folder: out/<profile>.
        graphs: folder of its two ONNX files.
    """

    profile: Profile
    folder: Path
    graphs: Path

    @property
    def is_emulated(self) -> bool:
        """Whether its server would compute in another precision: OpenVINO runs FP16 graphs in FP32 on a CPU."""
        return self.profile.precision == "fp16" and self.profile.runtime == "openvino"


@dataclass(frozen=True, kw_only=True)
class _Singles:
    """Latency and memory of single requests by name; no entry for an emulation."""

    latency_ms: dict[str, float]
    peak_bytes: dict[str, int]


def compare_precisions(variants: Sequence[Variant], original: Original | None, dataset: CocoDataset) -> Table:
    """Measure every variant and the original; each variant's accuracy.json is written too.

    All servers and the original run at once while single requests are timed, one after the other with the same
    pictures; then each server is asked about the whole data set. Answers are kept: a broken-off run goes on.

    Args:
        variants: of different precisions of one model, FP32 among them if the others shall be judged.
        original: None leaves it out.
        dataset: pictures and truth.

    Raises:
        ConfigError: two variants have one precision, or a repository was built from other graphs.
        GdinoError: what evaluate_profile() and evaluate_original() raise.
    """
    _check_variants(variants, dataset)
    if original:
        original.check_environment()
    with ExitStack() as stack:
        served = {
            variant.profile.name: stack.enter_context(_serving(variant, dataset))
            for variant in variants
            if not variant.is_emulated
        }
        singles = _measure_singles(served, original, dataset)
        records = [
            _served_record(one, served[one.profile.name], singles, dataset) for one in variants if not one.is_emulated
        ]
    records += [_emulated_record(variant, dataset) for variant in variants if variant.is_emulated]
    by_profile = {variant.profile.name: variant for variant in variants}
    for record in records:
        write_record(record, by_profile[record.profile].folder)
    measured = [_measured(record, by_profile[record.profile].graphs) for record in records]
    if original:
        measured.append(_original_measured(original, singles, dataset))
    return make_table(
        measured,
        hardware=describe_hardware(),
        scenes=len(dataset.pictures),
        is_demo=all(variant.profile.architecture == DEMO for variant in variants),
    )


def _check_variants(variants: Sequence[Variant], dataset: CocoDataset) -> None:
    precisions = [variant.profile.precision for variant in variants]
    for variant in variants:
        profile = variant.profile
        check_labels(dataset, profile.preprocess.text_buckets)
        if precisions.count(profile.precision) > 1:
            raise ConfigError(f"several profiles are {profile.precision}", fix="compare one profile of each precision")
        if not variant.is_emulated:
            served = served_onnx_sha256(variant.folder / "repository")
            if served != graphs_sha256(variant.graphs):
                raise ConfigError(
                    f"{variant.folder / 'repository'} was not built from the graphs in {variant.graphs}",
                    fix=f"make repository PROFILE={profile.name}",
                )


def _serving(variant: Variant, dataset: CocoDataset) -> AbstractContextManager[Served]:
    log_file = variant.folder / "evaluate-server.log"
    return serving(variant.folder / "repository", dataset.labels, log_file=log_file, named_ports=False)


def _measure_singles(served: dict[str, Served], original: Original | None, dataset: CocoDataset) -> _Singles:
    contenders: dict[str, Contender] = {name: file_contender(one.ask) for name, one in served.items()}
    with ExitStack() as stack:
        process: OriginalProcess | None = None
        if original:
            process = contenders[_ORIGINAL] = stack.enter_context(original_running(original, dataset))
        latency = interleaved_latency_ms(contenders, latency_sample(dataset), rounds=LATENCY_ROUNDS)
        peaks = {name: one.peak_bytes() for name, one in served.items()}
        if process:
            peaks[_ORIGINAL] = process.peak_bytes()
    return _Singles(latency_ms=latency, peak_bytes=peaks)


def _served_record(variant: Variant, served: Served, singles: _Singles, dataset: CocoDataset) -> AccuracyRecord:
    name, repository = variant.profile.name, variant.folder / "repository"
    with AnswerFile(variant.folder / ANSWERS_FILE_NAME, served_header(repository, dataset)) as answers:
        answer_all(dataset, answers, served.ask, in_flight=IN_FLIGHT, title=name)
        return make_record(
            variant.profile,
            dataset,
            answers,
            onnx_sha256=served_onnx_sha256(repository),
            latency_ms=singles.latency_ms[name],
            peak_bytes=singles.peak_bytes[name],
            through=served.through,
        )


def _emulated_record(variant: Variant, dataset: CocoDataset) -> AccuracyRecord:
    settings = variant.profile.preprocess
    header = emulated_header(variant.graphs, dataset, settings)
    with AnswerFile(variant.folder / ANSWERS_FILE_NAME, header) as answers:
        ask = emulating(variant.graphs, dataset.labels, settings)
        answer_all(dataset, answers, ask, title=f"{variant.profile.name}, emulated")
        return make_record(
            variant.profile,
            dataset,
            answers,
            onnx_sha256=graphs_sha256(variant.graphs),
            latency_ms=None,
            peak_bytes=None,
            through=EMULATED,
        )


def _measured(record: AccuracyRecord, graphs: Path) -> Measured:
    return Measured(
        precision=record.precision,
        ap=record.ap,
        ap50=record.ap50,
        ap75=record.ap75,
        ar=record.ar,
        bytes=graphs_bytes(graphs),
        latency_ms=record.latency_ms,
        peak_bytes=record.peak_bytes,
        through=record.through,
    )


def _original_measured(original: Original, singles: _Singles, dataset: CocoDataset) -> Measured:
    found = evaluate_original(original, dataset)
    figures: dict[str, Any] = points(found.accuracy)
    packages = ", ".join(found.made_with.split(", ")[:2])  # its own and torch
    clipped = f"its boxes may leave the picture; clipped, as ours are, AP {points(found.clipped)['ap']:.2f}"
    return Measured(
        precision=_ORIGINAL,
        bytes=found.parameter_bytes,
        latency_ms=singles.latency_ms[_ORIGINAL],
        peak_bytes=singles.peak_bytes[_ORIGINAL],
        through=f"{ORIGINAL}: {packages}; {clipped}",
        **figures,
    )
