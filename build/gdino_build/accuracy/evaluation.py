"""Measure a built profile through its server: accuracy, the latency of single requests, and the server's memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gdino_build.accuracy.answers import AnswerFile
from gdino_build.accuracy.asking import Ask, answer_all, coco_results
from gdino_build.accuracy.dataset import CocoDataset
from gdino_build.accuracy.latency import Contender, interleaved_latency_ms
from gdino_build.accuracy.record import AccuracyRecord, points
from gdino_build.accuracy.scoring import score
from gdino_build.accuracy.through_server import check_labels, served_header, served_onnx_sha256, serving
from gdino_build.machine import describe_hardware
from gdino_build.profile import Profile

ANSWERS_FILE_NAME = "accuracy-answers.jsonl"
LATENCY_PICTURES = 20  # of the data set, one request at a time
LATENCY_ROUNDS = 2
IN_FLIGHT = 4  # requests at once for the others: the next is preprocessed while one is in the detector


def evaluate_profile(profile: Profile, folder: Path, dataset: CocoDataset) -> AccuracyRecord:
    """Ask the server of a profile about every picture, and score the answers.

    Each answer is kept in out/<profile>/accuracy-answers.jsonl; run again after it was broken off, this goes on where
    it stopped.

    Args:
        profile: what was built.
        folder: out/<profile>, with its repository.
        dataset: pictures and truth.

    Raises:
        PromptError: the labels do not fit into one prompt.
        ServerError: the server does not start, or fails.
        ClientError: a request got no answer.
        ConfigError: the repository is not assembled, or a picture has another size than the data set says.
    """
    check_labels(dataset, profile.preprocess.text_buckets)
    repository = folder / "repository"
    with AnswerFile(folder / ANSWERS_FILE_NAME, served_header(repository, dataset)) as answers:
        with serving(repository, dataset.labels, log_file=folder / "evaluate-server.log") as served:
            sample = latency_sample(dataset)
            latency = interleaved_latency_ms({profile.name: file_contender(served.ask)}, sample, rounds=LATENCY_ROUNDS)
            peak = served.peak_bytes()  # of single requests: several in flight need more, by batches of chance
            answer_all(dataset, answers, served.ask, in_flight=IN_FLIGHT, title=profile.name)
        return make_record(
            profile,
            dataset,
            answers,
            onnx_sha256=served_onnx_sha256(repository),
            latency_ms=latency[profile.name],
            peak_bytes=peak,
            through=served.through,
        )


def make_record(
    profile: Profile,
    dataset: CocoDataset,
    answers: AnswerFile,
    *,
    onnx_sha256: Mapping[str, str],
    latency_ms: float | None,
    peak_bytes: int | None,
    through: str,
) -> AccuracyRecord:
    """Score the answers about a whole data set, and put the figures together; the rest as AccuracyRecord has it."""
    figures: dict[str, Any] = points(score(dataset.truth, coco_results(dataset, answers)))
    return AccuracyRecord(
        profile=profile.name,
        precision=profile.precision,
        dataset_sha256=dataset.sha256,
        scenes=len(dataset.pictures),
        onnx_sha256=onnx_sha256,
        latency_ms=latency_ms,
        peak_bytes=peak_bytes,
        through=through,
        hardware=describe_hardware(),
        **figures,
    )


def latency_sample(dataset: CocoDataset) -> list[Path]:
    """The pictures that latency is measured on, the first of the data set."""
    return [picture.path for picture in dataset.pictures[:LATENCY_PICTURES]]


def file_contender(ask: Ask) -> Contender:
    """Ask about a file: reading it is part of a request."""
    return lambda path: ask(path.read_bytes())
