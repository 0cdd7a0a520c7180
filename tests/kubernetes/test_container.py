"""The server as the manifests start, ask, watch and stop it, with the real tritonserver."""

import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import promql_parser
import pytest

from gdino_build.tritonserver import find_runtime
from gdino_client import Client, ServerUnavailable
from gdino_core.errors import ServerError
from tests.kubernetes.container import Container, running_container
from tests.kubernetes.rendered import SERVERS, Manifest, Rendered, flags
from tests.kubernetes.test_manifests import adapter_rules, filled

REPOSITORY = Path("out/demo-cpu/repository")
PICTURE, PROMPT = Path("demo/samples/1-landscape.jpg"), ["yellow star", "purple circle"]

server = pytest.mark.server


@pytest.fixture
def container(rendered: Callable[[str], Rendered], tmp_path: Path) -> Iterator[Container]:
    if not REPOSITORY.is_dir():
        pytest.fail("the demo repository is not built: run make repository, or make test")
    with running_container(rendered("cpu"), REPOSITORY, tmp_path / "server.log") as running:
        yield running


@pytest.mark.parametrize("variant", [*SERVERS, "kserve"])
def test_tritonserver_knows_every_flag(rendered: Callable[[str], Rendered], variant: str) -> None:
    runtime = find_runtime()
    text = subprocess.run([runtime.server, "--help"], capture_output=True, text=True, timeout=60).stderr
    known = {line.split()[0].removeprefix("--") for line in text.splitlines() if line.startswith("  --")}
    assert "model-repository" in known
    assert not flags(rendered(variant).server).keys() - known


@server
def test_a_confined_container_serves_and_shows_what_the_autoscaler_asks_for(container: Container) -> None:
    for probe in ("startupProbe", "readinessProbe"):
        assert container.health(container.manifest[probe]["timeoutSeconds"]) == "SERVING"
    with Client(container.grpc_url) as client:
        assert {one.label for one in client.detect(PICTURE, PROMPT)} == set(PROMPT)
    with urllib.request.urlopen(container.metrics_url, timeout=10) as response:
        lines = [line for line in response.read().decode().splitlines() if not line.startswith("#")]
    [rule] = adapter_rules()
    wanted = list(selectors(promql_parser.parse(filled(rule, 'namespace="gdino",pod="a"', "pod"))))
    assert len(wanted) == 2
    for one in wanted:
        # Prometheus adds these when it scrapes a pod; all others are the server's.
        own = [
            f'{label.name}="{label.value}"' for label in one.matchers.matchers if label.name not in ("namespace", "pod")
        ]
        assert any(line.startswith(f"{one.name}{{") and all(text in line for text in own) for line in lines), one


def selectors(expression: Manifest) -> Iterator[Manifest]:
    """The series that an expression of PromQL reads."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    for name in ("lhs", "rhs", "expr", "vector_selector"):
        if (inner := getattr(expression, name, None)) is not None:
            yield from selectors(inner)
    for inner in getattr(expression, "args", None) or []:
        yield from selectors(inner)


@server
def test_a_pod_that_is_deleted_answers_what_it_accepted_and_ends_by_itself(container: Container) -> None:
    hook = container.manifest["lifecycle"]["preStop"]["exec"]["command"]
    assert "--settle-seconds=10" in hook
    quick = [one.replace("=10", "=1") if one.startswith("--settle") else one for one in hook]
    with Client(container.grpc_url) as client, ThreadPoolExecutor(16) as pool:
        alone = client.detect(PICTURE, PROMPT)
        stopping = container.execute(quick)
        settling = [pool.submit(client.detect, PICTURE, PROMPT) for _ in range(16)]
        assert [one.result().labels for one in settling] == [alone.labels] * 16
        refused = None
        while stopping.poll() is None:
            try:
                client.detect(PICTURE, PROMPT)
            except ServerUnavailable as error:
                refused = error
                break
        _, said = stopping.communicate(timeout=60)
        assert stopping.returncode == 0, said
        assert "the server is stopping" in str(refused)
    container.process.send_signal(signal.SIGTERM)
    assert container.process.wait(timeout=int(flags(container.manifest)["exit-timeout-secs"]) + 5) == 0


@server
def test_a_server_whose_model_has_died_is_restarted_though_it_says_that_it_serves(container: Container) -> None:
    probe = container.manifest["livenessProbe"]["exec"]["command"]
    # In a container the probe sees the container's processes; here, all of this machine.
    only = ("--server", str(container.process.pid))
    alive = container.execute(probe, *only)
    _, said = alive.communicate(timeout=60)
    assert alive.returncode == 0, said
    [detector] = [pid for pid, command in container.models().items() if "/detector/" in command]
    subprocess.run(["kill", "-KILL", str(detector)], check=True)
    time.sleep(0.5)
    with Client(container.grpc_url) as client, pytest.raises(ServerError, match="not healthy"):
        client.detect(PICTURE, PROMPT)
    assert container.health(5) == "SERVING"
    dead = container.execute(probe, *only)
    _, said = dead.communicate(timeout=60)
    assert dead.returncode == 1
    assert f"process {detector} of a model has ended" in said
