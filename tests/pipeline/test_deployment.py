"""A deployment knows its server by a lock, and refuses a deploy.toml that it cannot follow."""

import multiprocessing
import os
import signal
import subprocess
from pathlib import Path

import pytest

from gdino_build.deployment.command_line import alone, last_lines, run_command
from gdino_build.deployment.server_record import find_server, recorded_server
from gdino_build.deployment.settings import load_deploy_settings
from gdino_build.server_ports import ServerPorts
from gdino_core.errors import ConfigError, ServerError

PORTS = ServerPorts(grpc=9001, http=9000, metrics=9002)
DEPLOY = """
extends = "demo-cpu"
[deploy]
model = "demo"
weights = ["mirror", "github"]
mirror = ""
file = ""
copies = "one"
"""


def test_a_server_is_known_while_it_runs_and_no_longer(tmp_path: Path) -> None:
    assert find_server(tmp_path) is None
    with recorded_server(tmp_path, "abc", PORTS):
        found = find_server(tmp_path)
        assert found is not None
        assert (found.manifest_sha256, found.ports) == ("abc", PORTS)
        with recorded_server(tmp_path, "def", PORTS):  # a second one of the same profile
            assert find_server(tmp_path) == found
    assert find_server(tmp_path) is None


def test_the_record_of_a_server_that_was_killed_does_not_count(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_be_killed, args=(tmp_path,))
    process.start()
    process.join()
    assert (tmp_path / "server.json").exists()
    assert find_server(tmp_path) is None


def _be_killed(folder: Path) -> None:
    with recorded_server(folder, "abc", PORTS):
        os.kill(os.getpid(), signal.SIGKILL)


def _deploy_and_be_killed(folder: Path) -> None:
    with alone(folder, lambda _: None) as lock:
        subprocess.Popen(["sh", "-c", f"sleep 1; touch {folder}/done"], pass_fds=[lock])
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_deployment_waits_for_what_a_killed_one_has_begun(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_deploy_and_be_killed, args=(tmp_path,))
    process.start()
    process.join()
    said: list[str] = []
    with alone(tmp_path, said.append):
        assert (tmp_path / "done").exists()
    assert said[0] == "waiting for what another make deploy has begun"


def test_sources_without_an_address_are_passed_over(tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text(DEPLOY)
    assert load_deploy_settings(config).weights == ["github"]
    config.write_text(DEPLOY.replace('mirror = ""', 'mirror = "https://host/models"'))
    assert load_deploy_settings(config).weights == ["mirror", "github"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (('model = "demo"', 'model = "demon"'), r"\[deploy\] model is 'demon'"),
        (('"github"', '"gopher"'), r"\[deploy\] weights has 'gopher'"),
        (('copies = "one"', ""), r"\[deploy\] lacks copies"),
        (('copies = "one"', 'copies = "two"'), r"\[deploy\] copies is 'two'"),
        (('extends = "demo-cpu"', 'extends = "gpu-fp16"'), "is for tensorrt, and make deploy serves CPU profiles only"),
    ],
)
def test_what_cannot_be_deployed_is_refused(tmp_path: Path, changed: tuple[str, str], message: str) -> None:
    (tmp_path / "mine.toml").write_text(DEPLOY.replace(*changed))
    with pytest.raises(ConfigError, match=message):
        load_deploy_settings(tmp_path / "mine.toml")


def test_without_a_plan_one_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no .*\n  fix: make plan writes one"):
        load_deploy_settings(tmp_path / "none.toml")


def test_a_command_that_fails_is_told_with_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "step.log"
    with (
        alone(tmp_path, lambda _: None) as lock,
        pytest.raises(ServerError, match=r"failed:\nno such thing\n"),
    ):
        run_command(["sh", "-c", "echo no such thing >&2; exit 3"], log, lock, lambda _: None)
    log.write_bytes(b"first\n10%\r50%\rdone\n\n")
    assert last_lines(log, 2) == "first\ndone"
