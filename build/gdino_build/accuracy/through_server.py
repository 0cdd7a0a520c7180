"""Ask the Triton server of a built profile, in the label mode of the original's COCO evaluation."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gdino_build.accuracy.answers import Found
from gdino_build.accuracy.asking import Ask
from gdino_build.accuracy.dataset import CocoDataset
from gdino_build.machine import session_peak_bytes
from gdino_build.serve import RunningServer, running_server
from gdino_build.server_ports import ServerPorts
from gdino_client import Client
from gdino_core.errors import ConfigError, PromptError
from gdino_core.manifest import MANIFEST_FILE_NAME
from gdino_core.prompt import encode_prompt

# Average precision ranks everything, so nothing is thrown away by score; 300 is the original's num_select.
BOX_THRESHOLD: Final = 0.0
MAX_DETECTIONS: Final = 300
_TIMEOUT_S = 600.0  # full-size models on a small machine, several requests in flight


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server that can be asked.

    Attributes:
        ask: sends an encoded picture with all labels; may be called from several threads.
        server: that runs.
        through: what computes and what it is asked through, in words.
    """

    ask: Ask
    server: RunningServer
    through: str

    def peak_bytes(self) -> int:
        """Most memory that the server and the processes of its models held, up to now."""
        return session_peak_bytes(self.server.pid)


@contextmanager
def serving(repository: Path, labels: Sequence[str], *, log_file: Path, named_ports: bool = True) -> Iterator[Served]:
    """Serve a repository for as long as a `with` block lasts.

    Args:
        repository: an assembled one.
        labels: to ask for in every picture.
        log_file: what the server prints.
        named_ports: whether GRPC_PORT and the like, where they are set, choose the ports; of several servers at once
            none may.

    Raises:
        ServerError: it does not start.
        ConfigError: its manifest cannot be read.
    """
    versions = read_manifest(repository)["versions"]
    ports = ServerPorts.given_or_unused(os.environ) if named_ports else ServerPorts.unused()
    with (
        running_server(repository, ports=ports, log_file=log_file) as server,
        Client(server.grpc_url, timeout_s=_TIMEOUT_S) as client,
    ):

        def ask(data: bytes) -> Found:
            found = client.detect(data, labels, box_threshold=BOX_THRESHOLD, max_detections=MAX_DETECTIONS)
            return Found(
                boxes_xyxy=found.boxes_xyxy,
                scores=found.scores,
                label_index=found.label_index,
                image_hw=found.image_hw,
            )

        through = f"Triton {server.version} over gRPC, OpenVINO {versions['openvino']}"
        yield Served(ask=ask, server=server, through=through)


def read_manifest(repository: Path) -> dict[str, Any]:
    """Read what a repository was made of.

    Raises:
        ConfigError: it is not assembled.
    """
    path = repository / MANIFEST_FILE_NAME
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", fix="build the repository: make repository") from error
    return manifest


def served_onnx_sha256(repository: Path) -> dict[str, str]:
    """SHA-256 of the graphs that the engines of a repository were made from, by model."""
    return {name: engine["onnx_sha256"] for name, engine in read_manifest(repository)["engines"].items()}


def served_header(repository: Path, dataset: CocoDataset) -> dict[str, Any]:
    """All that answers depend on: every file of the repository, both engines among them, the data set, and settings."""
    manifest = read_manifest(repository)
    files: Mapping[str, Mapping[str, Any]] = manifest["files"]
    return {
        "repository": {name: file["sha256"] for name, file in files.items()},
        "versions": manifest["versions"],
        **asked_header(dataset),
    }


def asked_header(dataset: CocoDataset) -> dict[str, Any]:
    """What is asked, as the header of answers has it."""
    return {
        "annotations_sha256": dataset.sha256,
        "box_threshold": BOX_THRESHOLD,
        "max_detections": MAX_DETECTIONS,
    }


def check_labels(dataset: CocoDataset, text_buckets: tuple[int, ...]) -> None:
    """Refuse labels that a server would refuse, before one is started.

    Args:
        dataset: whose labels are asked for all at once.
        text_buckets: of the profile.

    Raises:
        PromptError: they do not fit into one prompt, or one has no letter, digit or sign.
    """
    try:
        encode_prompt(dataset.labels, text_buckets)
    except PromptError as error:
        raise PromptError(
            f"the {len(dataset.labels)} categories of {dataset.file} make no prompt: {error.message}",
            fix="keep the categories that fit in the annotation file, and evaluate the others with a second one",
        ) from error
