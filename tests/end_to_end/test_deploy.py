"""`make deploy` ends with an endpoint that answers, wherever it was killed before, and `make undeploy` with none."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gdino_build.deployment.server_record import find_server
from gdino_build.profile import load_profile
from gdino_build.security.access import open_access
from gdino_build.security.certificates import make_certificates
from gdino_build.security.keys import make_keys
from gdino_build.server_ports import ServerPorts
from gdino_client import Client, ServerUnavailable

pytestmark = pytest.mark.server

PICTURE = Path("demo/samples/1-landscape.jpg")
CONFIG = """
extends = "demo-cpu"

[deploy]
model = "demo"
weights = []
mirror = ""
file = ""
copies = "one"

[security]
tls_cert = "{folder}/server.pem"
tls_key = "{folder}/server.key"
inference_key = "{folder}/inference.key"
probe_ca = "{folder}/ca.pem"
"""


class Command:
    """`gdino-build deploy` and `undeploy` of one configuration, as a user calls them."""

    def __init__(self, config: Path, environment: dict[str, str]) -> None:
        self.config, self.environment = config, environment
        self.folder = Path("out") / config.stem

    def start(self, name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "gdino_build.cli", name, "--config", str(self.config)]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, name: str) -> str:
        process = self.start(name)
        text, _ = process.communicate(timeout=600)
        assert process.returncode == 0, text
        return text

    def kill_at(self, step: str) -> None:
        """Start a deployment, and kill it when it is at a step."""
        with self.start("deploy") as process:
            assert process.stdout is not None
            shown = ""
            while f"] {step}" not in shown:
                read = process.stdout.read(1)
                assert read, shown
                shown += read
            time.sleep(0.5)
            process.send_signal(signal.SIGKILL)


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    ports = ServerPorts.unused().by_variable()
    config = tmp_path / f"deploy-test-{os.getpid()}.toml"
    make_certificates(tmp_path, ["127.0.0.1"])
    make_keys(tmp_path)
    config.write_text(CONFIG.format(folder=tmp_path))
    one = Command(config, os.environ | {name: str(port) for name, port in ports.items()})
    yield one
    one.run("undeploy")
    shutil.rmtree(one.folder)


def test_a_deployment_killed_at_any_step_ends_the_same_when_it_is_run_again(command: Command) -> None:
    for step in ("build", "verify", "serve", "ready"):
        command.kill_at(step)
    text = command.run("deploy")
    assert re.findall(r"^\[\d/8\] (\w+)", text, re.MULTILINE) == [
        *("doctor", "weights", "build", "verify", "serve", "ready", "detect", "metrics")
    ]
    assert re.search(r"\d objects in demo/samples/1-landscape\.jpg: purple circle, yellow star", text), text
    [url] = re.findall(r"^gRPC +(\S+)$", text, re.MULTILINE)
    with Client(url, credentials=open_access(load_profile(str(command.config)).security).credentials) as client:
        assert {one.label for one in client.detect(PICTURE, ["yellow star", "purple circle"])} == {
            *("yellow star", "purple circle")
        }
    with Client(url) as stranger, pytest.raises(ServerUnavailable, match="no Triton server answers"):
        stranger.status()
    first = find_server(command.folder)

    again = command.run("deploy")  # has nothing to do but to ask
    assert "this build passed before" in again
    assert find_server(command.folder) == first

    assert "stopped process" in command.run("undeploy")
    assert find_server(command.folder) is None
    assert "no server of" in command.run("undeploy")
