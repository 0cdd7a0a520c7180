"""Run the server's container of a manifest on this machine as nearly as can be without a cluster.

Its file system is read-only but for a /tmp and a /dev/shm of its own, this of the size that the manifest gives; it
has no capabilities and cannot gain any. It keeps this machine's user and network, so the ports are others, on loopback;
and the program is the embedded tritonserver.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gdino_build.machine import session_processes
from gdino_build.server_ports import ServerPorts
from gdino_build.tritonserver import find_runtime, process_environment
from tests.kubernetes.rendered import Manifest, Rendered, amount

_NAMESPACES = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
# $0 is the size of /dev/shm, the rest what runs. The project stays where it is, though it may lie below /tmp.
_SETUP = """
mount --bind "$PWD" /mnt
mount -t tmpfs tmpfs /tmp
mkdir -p "$PWD"
mount --bind /mnt "$PWD"
mount -o remount,bind,ro "$PWD"
mount -t tmpfs -o size="$0",mode=1777 tmpfs /dev/shm
mount -o remount,bind,ro /
cd "$PWD"
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs --pdeathsig KILL "$@"
"""


class Container:
    """The server, running."""

    def __init__(
        self, process: subprocess.Popen[bytes], ports: ServerPorts, manifest: Manifest, log_file: Path
    ) -> None:
        self.process, self.ports, self.manifest, self.log_file = process, ports, manifest, log_file
        self.grpc_url = f"127.0.0.1:{ports.grpc}"
        self.metrics_url = f"http://127.0.0.1:{ports.metrics}/metrics"

    def health(self, timeout_s: float) -> str:
        """What the kubelet's gRPC probe is told."""
        with grpc.insecure_channel(self.grpc_url) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def execute(self, command: list[str], *more: str) -> subprocess.Popen[str]:
        """Run a command of the manifest beside the server, as the kubelet does."""
        program, *arguments = command
        assert program == "python3"
        return subprocess.Popen(
            [
                *("nsenter", f"--target={self.process.pid}", "--mount", f"--wd={Path.cwd()}", sys.executable),
                *(_local(one, self.ports) for one in arguments),
                *more,
            ],
            env=os.environ | {one["name"]: one["value"] for one in self.manifest["env"]},
            stderr=subprocess.PIPE,
            text=True,
        )

    def models(self) -> dict[int, str]:
        """Process ids of the models, with their command lines."""
        found = session_processes(self.process.pid)
        return {pid: command for pid, command in found.items() if "triton_python_backend_stub" in command}


@contextlib.contextmanager
def running_container(rendered: Rendered, repository: Path, log_file: Path) -> Iterator[Container]:
    """Start it, give it when its startup probe would succeed, and stop it."""
    manifest, ports, runtime = rendered.server, ServerPorts.unused(), find_runtime()
    shell, option, program, server, *given = manifest["args"]
    arguments = [
        *(_local(one.replace("=/models", f"={repository.resolve()}"), ports) for one in given),
        *(f"--backend-directory={runtime.backends}", f"--cache-directory={runtime.caches}"),
    ]
    environment = process_environment(runtime, os.environ | {one["name"]: one["value"] for one in manifest["env"]})
    environment["PATH"] = f"{runtime.server.parent}:{environment['PATH']}"
    [shared] = [one for pod in rendered.pods for one in pod["volumes"] if one["name"] == "shared-memory"]
    size = str(round(amount(shared["emptyDir"]["sizeLimit"])))
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [
                *("unshare", *_NAMESPACES, "sh", "-euc", _SETUP, size),
                *(shell, option, program, server, *arguments),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        container = Container(process, ports, manifest, log_file)
        _wait_for_startup(container)
        yield container
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _local(argument: str, ports: ServerPorts) -> str:
    return argument.replace("8001", str(ports.grpc)).replace("8002", str(ports.metrics)).replace("0.0.0.0", "127.0.0.1")


def _wait_for_startup(container: Container) -> None:
    probe = container.manifest["startupProbe"]
    deadline = time.monotonic() + probe["periodSeconds"] * probe["failureThreshold"]
    while True:
        assert container.process.poll() is None, container.log_file.read_text()
        with contextlib.suppress(grpc.RpcError):
            assert container.health(probe["timeoutSeconds"]) == "SERVING"
            return
        assert time.monotonic() < deadline, container.log_file.read_text()
        time.sleep(0.2)
