"""What stands in for the Docker engine: notes each call, and serves with the embedded server in the container's place.

`docker compose … up` serves REPOSITORY at GRPC_PORT and METRICS_PORT until `down`; CALLS is the file of notes.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_SERVE = """
import sys
from pathlib import Path
from gdino_build.serve import serve
from gdino_build.server_ports import ServerPorts
serve(Path(sys.argv[1]), ports=ServerPorts(grpc=int(sys.argv[2]), metrics=int(sys.argv[3])), log_file=Path(sys.argv[4]))
"""


def main() -> int:
    """Do what a subcommand of compose does."""
    calls = Path(os.environ["CALLS"])
    names = ("REPOSITORY", "GRAFANA_PASSWORD", "GRPC_PORT", "METRICS_PORT")
    call = {"arguments": sys.argv[1:], "environment": {name: os.environ.get(name) for name in names}}
    with calls.open("a") as file:
        file.write(json.dumps(call) + "\n")
    if os.environ.get("BROKEN_DOCKER") and "version" not in sys.argv:  # which asks no engine
        print("Cannot connect to the Docker daemon", file=sys.stderr)
        return 1
    running = calls.with_name("container.pid")
    if "up" in sys.argv:
        _down(running)
        _up(running, *(os.environ[name] for name in ("REPOSITORY", "GRPC_PORT", "METRICS_PORT")))
    elif "down" in sys.argv:
        _down(running)
    elif "ps" in sys.argv and running.exists():
        print("0123456789ab")
    return 0


def _up(running: Path, repository: str, grpc_port: str, metrics_port: str) -> None:
    output = running.with_suffix(".out")
    command = [sys.executable, "-c", _SERVE, repository, grpc_port, metrics_port, str(running.with_suffix(".log"))]
    with output.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    while "is ready" not in output.read_text():
        if process.poll() is not None:
            sys.exit(output.read_text())
        time.sleep(0.1)
    running.write_text(str(process.pid))


def _down(running: Path) -> None:
    if running.exists():
        pid = int(running.read_text())
        os.kill(pid, signal.SIGTERM)
        while Path(f"/proc/{pid}/stat").exists() and ") Z" not in Path(f"/proc/{pid}/stat").read_text():
            time.sleep(0.1)
        running.unlink()


if __name__ == "__main__":
    sys.exit(main())
