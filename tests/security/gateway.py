"""Run the shipped gateway: its template filled in, in a real nginx, for as long as a `with` block lasts."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NGINX = Path("out/nginx/usr/sbin/nginx")
TEMPLATE = Path("docker/gateway/gateway.conf.template")
# What Debian's package and the official image have around it.
AROUND = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/gateway.conf;
}}
"""


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A gateway that listens."""

    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to nginx: SIGHUP lets it read its files again."""
        os.kill(int((self.folder / "nginx.pid").read_text()), number)

    def log(self) -> str:
        return (self.folder / "access.log").read_text()


def shipped_settings() -> dict[str, str]:
    """gateway.env."""
    lines = TEMPLATE.with_name("gateway.env").read_text().splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        return int(chosen.getsockname()[1])


@contextlib.contextmanager
def running_gateway(folder: Path, upstream: str, **changed: str) -> Iterator[Gateway]:
    """Start it with the certificates, keys.map and upstream.map that lie in a folder."""
    gateway = Gateway(port=unused_port(), folder=folder)
    settings = shipped_settings() | {
        "GATEWAY_ADDRESS": "127.0.0.1",
        "GATEWAY_PORT": str(gateway.port),
        "GATEWAY_FOLDER": str(folder),
        "GATEWAY_UPSTREAM": upstream,
        "GATEWAY_SCHEME": "grpcs",
        "GATEWAY_PATIENCE_S": "3",
        "GATEWAY_LOG": str(folder / "access.log"),
        **changed,
    }
    # As envsubst does: nginx's own variables, which are in lower case, stay.
    filled = TEMPLATE.read_text()
    for name, value in settings.items():
        filled = filled.replace(f"${{{name}}}", value)
    (folder / "gateway.conf").write_text(filled)
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder))
    with subprocess.Popen([NGINX, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"]) as nginx:
        try:
            _wait(gateway, nginx)
            yield gateway
        finally:
            nginx.terminate()


def _wait(gateway: Gateway, nginx: subprocess.Popen[bytes]) -> None:
    while True:
        assert nginx.poll() is None, (gateway.folder / "error.log").read_text()
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", gateway.port)):
            return
        time.sleep(0.05)
