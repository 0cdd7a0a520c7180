"""What a deployment does.

Each step looks first whether it has anything to do: run again, a deployment goes on where it broke off.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gdino_build.deployment.command_line import GDINO_BUILD, last_line, last_lines, run_command
from gdino_build.deployment.compose_server import check_docker, find_containers, start_containers, stop_containers
from gdino_build.deployment.server_record import ServerRecord, find_server
from gdino_build.deployment.settings import DeploySettings
from gdino_build.doctor.collect import collect_facts
from gdino_build.doctor.compatibility import load_compatibility
from gdino_build.doctor.diagnosis import BLOCKS, diagnose
from gdino_build.engine import sha256_of
from gdino_build.readiness import START_TIMEOUT_S, is_ready
from gdino_build.security.access import open_access
from gdino_build.serve import DRAIN_TIMEOUT_S, listeners
from gdino_build.server_ports import HOST, ServerPorts, host_port
from gdino_build.whole_file import write_json
from gdino_client import Client
from gdino_core import contract
from gdino_core.errors import ConfigError, ServerError
from gdino_core.manifest import MANIFEST_FILE_NAME

SMOKE_PICTURE: Final = Path("demo/samples/1-landscape.jpg")
SMOKE_LABELS: Final = ("yellow star", "purple circle")  # that are in it
_VERIFIED = "verified.json"
_POLL_S = 0.2
_SUCCESSES = re.compile(r'^nv_inference_request_success\{model="(\w+)"[^}]*\} (\d+)', re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What the steps work on.

    Attributes:
        settings: from deploy.toml.
        out: root of all outputs, "out" for those of the Makefile.
        environment: the project's virtual environment.
        lock: file descriptor from `command_line.alone`.
        progress: is told what a step is at, several times a second.
    """

    settings: DeploySettings
    out: Path
    environment: Path
    lock: int
    progress: Callable[[str], None]

    @property
    def folder(self) -> Path:
        """Of the profile."""
        return self.out / self.settings.profile

    @property
    def manifest_sha256(self) -> str:
        """Of the repository that is built."""
        return sha256_of(self.folder / "repository" / MANIFEST_FILE_NAME)

    def run(self, name: str, *command: str) -> None:
        """Run a command, its output in a file named for the step."""
        run_command(command, self.folder / "deploy-logs" / f"{name}.log", self.lock, self.progress)


def check_machine(deployment: Deployment) -> str:
    """Refuse a machine that cannot serve."""
    if deployment.settings.way == "docker":
        check_docker()
    findings = diagnose(collect_facts(Path(), deployment.environment), load_compatibility())
    for finding in findings:
        if finding.weight == BLOCKS:
            raise ServerError(f"{finding.what}: {finding.why}", fix=finding.fix)
    return f"{len(findings)} limits, see make doctor" if findings else "nothing stands in the way"


def fetch_weights(deployment: Deployment) -> str:
    """Download the official weights, unless the checkpoint is in place."""
    settings = deployment.settings
    if settings.checkpoint.exists():
        return f"{settings.checkpoint} is there"
    if not settings.weights:
        raise ConfigError(
            f"{settings.checkpoint} is not there, and no source has it",
            fix=f"put it there, or name weights, mirror or file in [deploy] of {settings.config}",
        )
    address = ["--mirror", settings.mirror] if settings.mirror else []
    address += ["--file", settings.file] if settings.file else []
    deployment.run("weights", *GDINO_BUILD, "weights", settings.model, *address, "--source", *settings.weights)
    return f"{settings.checkpoint} is downloaded and verified"


def build(deployment: Deployment) -> str:
    """Let make bring the repository up to date."""
    deployment.run("build", "make", "--no-print-directory", "repository", f"PROFILE={deployment.settings.config}")
    return f"{deployment.folder / 'repository'}"


def verify(deployment: Deployment) -> str:
    """Prove that what is built computes what the checkpoint computes, once for each build."""
    stamp = deployment.folder / _VERIFIED
    built = {"manifest_sha256": deployment.manifest_sha256}
    with contextlib.suppress(OSError, ValueError):
        if json.loads(stamp.read_text(encoding="utf-8")) == built:
            return "this build passed before"
    deployment.run("verify", *GDINO_BUILD, "verify", "--profile", str(deployment.settings.config))
    write_json(stamp, built)
    return "every stage within its tolerance"


def serve(deployment: Deployment) -> str:
    """Start the server in the background, unless one serves this build already; one of another build makes way."""
    running = _find(deployment)
    if running is not None and running.manifest_sha256 == deployment.manifest_sha256:
        return f"one runs, {running}"
    if deployment.settings.way == "docker":
        ports = ServerPorts.from_environment(os.environ)
        start_containers(deployment.folder, deployment.manifest_sha256, ports, deployment.lock, deployment.progress)
        return "server, Prometheus and Grafana are healthy"
    if running is not None:
        stop_server(deployment.settings, deployment.folder, deployment.progress)
    output = _serve_output(deployment)
    output.parent.mkdir(parents=True, exist_ok=True)
    command = [*GDINO_BUILD, "serve", "--profile", str(deployment.settings.config)]
    with output.open("wb") as log:
        # A session of its own: it goes on when this program and its terminal end.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    while (found := find_server(deployment.folder)) is None:
        if process.poll() is not None:
            raise _did_not_start(deployment)
        time.sleep(_POLL_S)
    return str(found)


def wait_ready(deployment: Deployment) -> str:
    """Wait until all models are loaded and warmed up."""
    credentials = open_access(deployment.settings.security).credentials
    started = time.monotonic()
    while True:
        running = _find(deployment)
        if running is None:
            raise _did_not_start(deployment)
        if is_ready(_grpc_url(deployment, running), credentials):
            return f"after {time.monotonic() - started:.0f} s"
        if time.monotonic() - started > 2 * START_TIMEOUT_S:
            raise _did_not_start(deployment)
        deployment.progress(last_line(_serve_output(deployment)))
        time.sleep(_POLL_S)


def detect(deployment: Deployment) -> str:
    """Ask for what is in a picture, as a client would."""
    credentials = open_access(deployment.settings.security).credentials
    with Client(_grpc_url(deployment, _running(deployment)), credentials=credentials) as client:
        found = client.detect(SMOKE_PICTURE, list(SMOKE_LABELS), timeout_s=START_TIMEOUT_S)
    labels = sorted({one.label for one in found})
    if deployment.settings.model == "demo" and labels != sorted(SMOKE_LABELS):
        raise ServerError(
            f"{SMOKE_PICTURE} has {', '.join(SMOKE_LABELS)}, and the server finds {', '.join(labels) or 'nothing'}",
            fix=f"make verify PROFILE={deployment.settings.config} tells which stage differs",
        )
    return f"{len(found)} objects in {SMOKE_PICTURE}" + (f": {', '.join(labels)}" if labels else "")


def read_metrics(deployment: Deployment) -> str:
    """Read the metrics, in which that request must be counted."""
    where = host_port(deployment.settings.security.metrics_address, _running(deployment).ports.metrics)
    url = f"http://{where}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        counts = dict(_SUCCESSES.findall(answer.read().decode("utf-8")))
    answered = int(counts.get(contract.MODEL_GROUNDING_DINO, "0"))
    if not answered:
        raise ServerError(f"{url} counts no request", fix="the server's log may say why")
    return f"{answered} requests answered so far"


STEPS: Final[Sequence[tuple[str, Callable[[Deployment], str]]]] = (
    ("doctor", check_machine),
    ("weights", fetch_weights),
    ("build", build),
    ("verify", verify),
    ("serve", serve),
    ("ready", wait_ready),
    ("detect", detect),
    ("metrics", read_metrics),
)


def server_urls(deployment: Deployment) -> dict[str, str]:
    """Where the server is, by what is there."""
    found = listeners(deployment.settings.security, _running(deployment).ports)
    urls = {"gRPC": found["grpc"], "metrics": f"http://{found['metrics']}/metrics"}
    if deployment.settings.way == "docker":
        urls["Prometheus"] = f"http://{HOST}:{os.environ.get('PROMETHEUS_PORT', '9090')}"
        urls["Grafana"] = f"http://{HOST}:{os.environ.get('GRAFANA_PORT', '3000')}, user admin"
    return urls | ({"HTTP": f"http://{found['http']}"} if "http" in found else {})


def stop_server(settings: DeploySettings, folder: Path, progress: Callable[[str], None]) -> ServerRecord | None:
    """Stop the server of a deployment after it has answered what it accepted; returns which it was.

    Raises:
        ServerError: it does not stop.
    """
    if settings.way == "docker":
        return stop_containers(folder)
    running = find_server(folder)
    if running is None or running.pid is None:
        return None
    with contextlib.suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGTERM)
    started = time.monotonic()
    while find_server(folder) is not None:
        if time.monotonic() - started > DRAIN_TIMEOUT_S + START_TIMEOUT_S:
            raise ServerError(f"{running} does not stop", fix=f"kill {running.pid}, and try again")
        progress(f"{running} answers what it accepted")
        time.sleep(_POLL_S)
    return running


def _grpc_url(deployment: Deployment, running: ServerRecord) -> str:
    return host_port(deployment.settings.security.address, running.ports.grpc)


def _find(deployment: Deployment) -> ServerRecord | None:
    find = find_containers if deployment.settings.way == "docker" else find_server
    return find(deployment.folder)


def _running(deployment: Deployment) -> ServerRecord:
    running = _find(deployment)
    if running is None:
        raise _did_not_start(deployment)
    return running


def _serve_output(deployment: Deployment) -> Path:
    return deployment.folder / "deploy-logs" / "serve.log"


def _did_not_start(deployment: Deployment) -> ServerError:
    output = _serve_output(deployment)
    said = last_lines(output, 10) if output.exists() else ""
    return ServerError(f"the server does not run:\n{said}", fix=f"all that it said is in {output}")
