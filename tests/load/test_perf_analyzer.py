"""What perf_analyzer is given and what it reports, as it was seen to report it."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import deserialize_bytes_tensor

from gdino_build.load.perf_analyzer import LevelTimes, PerfAnalyzer, read_report, write_requests
from gdino_core.errors import ConfigError, ServerError

# perf_analyzer 2.46.0 on the demo's server, with --percentile 95.
RECORDED = """
Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,Server Compute Infer,Server Compute Output,Server Cache Hit,Server Cache Miss,Client Recv,p50 latency,p90 latency,p95 latency,p99 latency
4,35.9931,14,23860,4,224,85137,1115,0,0,4,106708,169281,187689,208309
"""  # noqa: E501


def test_microseconds_of_the_report_become_milliseconds() -> None:
    assert read_report(RECORDED) == LevelTimes(
        concurrency=4, per_s=35.9931, p50_ms=106.708, p95_ms=187.689, p99_ms=208.309
    )
    with pytest.raises(ServerError, match="measured nothing"):
        read_report(RECORDED.strip().splitlines()[0])


def test_requests_hold_pictures_and_labels_as_they_go_over_the_wire(tmp_path: Path) -> None:
    pictures, labels = [b"\xff\xd8 one", b"\x00two"], ["red circle", "ü"]
    write_requests(pictures, labels, tmp_path / "requests.json")
    written = json.loads((tmp_path / "requests.json").read_text())["data"]
    for request, picture in zip(written, pictures, strict=True):
        assert request["IMAGE"]["shape"] == [1]
        assert deserialize_bytes_tensor(base64.b64decode(request["IMAGE"]["b64"])).tolist() == [picture]
        assert request["PROMPT"]["shape"] == [2]
        found = deserialize_bytes_tensor(base64.b64decode(request["PROMPT"]["b64"]))
        assert [label.decode() for label in found] == labels
        assert isinstance(found, np.ndarray)


def test_an_environment_without_it_is_told_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no perf_analyzer in .*\n  fix: make it with .*make_perf_analyzer"):
        PerfAnalyzer(environment=tmp_path).check()
    program = tmp_path / "bin" / "perf_analyzer"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'libb64.so.0d: cannot open shared object file' >&2\nexit 127\n")
    program.chmod(0o755)
    with pytest.raises(ConfigError, match=r"does not run: libb64\.so\.0d"):
        PerfAnalyzer(environment=tmp_path).check()
