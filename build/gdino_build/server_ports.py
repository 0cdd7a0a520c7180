"""The ports that a server listens on: which they are, and who holds one that is taken."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from gdino_core.errors import ConfigError, ServerError

HOST: Final = "127.0.0.1"
ALL_ADDRESSES: Final = "0.0.0.0"
_VARIABLES: Final = ("GRPC_PORT", "HTTP_PORT", "METRICS_PORT")
_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp


@dataclass(frozen=True, kw_only=True)
class ServerPorts:
    """Different TCP ports.

    Attributes:
        grpc: of the service that clients ask.
        http: of the same service over HTTP; None: it is not served.
        metrics: for Prometheus.

    Raises:
        ConfigError: one is out of range, or two are the same.
    """

    grpc: int = 8001
    http: int | None = None
    metrics: int = 8002

    def __post_init__(self) -> None:
        """Check every port."""
        ports = self.by_variable()
        for variable, port in ports.items():
            if not 1 <= port <= 65535:
                raise ConfigError(f"{variable} is {port}", fix="give a port from 1 to 65535")
        if len(set(ports.values())) < len(ports):
            told = ", ".join(f"{variable} {port}" for variable, port in ports.items())
            raise ConfigError(f"two of {told} are the same", fix="give different ports")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read GRPC_PORT, HTTP_PORT and METRICS_PORT; what is not set has its default, for HTTP none.

        Raises:
            ConfigError: one is no port, or two are the same.
        """
        ports: dict[str, int] = {}
        for variable in _VARIABLES:
            if text := environment.get(variable):
                if not (text.isascii() and text.isdigit()):
                    raise ConfigError(f"{variable} is {text!r}", fix="give a port from 1 to 65535")
                ports[variable.removesuffix("_PORT").lower()] = int(text)
        return cls(**ports)

    @classmethod
    def unused(cls) -> Self:
        """Choose ports that nothing listens on now."""
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
            for each in sockets:
                each.bind((HOST, 0))
            grpc, metrics = (each.getsockname()[1] for each in sockets)
        return cls(grpc=grpc, metrics=metrics)

    @classmethod
    def given_or_unused(cls, environment: Mapping[str, str]) -> Self:
        """Take the ports from the environment when it names any, else choose unused ones.

        For servers that come and go, such as the demo's: they need not wait for anybody's port.
        """
        named = any(environment.get(variable) for variable in _VARIABLES)
        return cls.from_environment(environment) if named else cls.unused()

    def by_variable(self) -> dict[str, int]:
        """Those that are served, by the environment variable that changes each."""
        ports = zip(_VARIABLES, (self.grpc, self.http, self.metrics), strict=True)
        return {variable: port for variable, port in ports if port is not None}

    def check_unused(self) -> None:
        """Refuse ports that are taken.

        Raises:
            ServerError: it names the port, who holds it where that can be seen, and the variable that changes it.
        """
        for variable, port in self.by_variable().items():
            check_port_unused(variable, port)


def check_port_unused(variable: str, port: int) -> None:
    """Refuse a port that is taken.

    Raises:
        ServerError: it names the port, who holds it where that can be seen, and the variable that changes it.
    """
    with socket.socket() as probe:
        # As servers do it: connections that are still closing do not count, listeners do.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise _port_error(variable, port, error) from error


def host_port(address: str, port: int) -> str:
    """Where this machine reaches what listens on an address and a port."""
    return f"{HOST if address == ALL_ADDRESSES else address}:{port}"


def listener_of(port: int) -> str:
    """Tell who listens on a port, such as "python3 (pid 71)"; "" where that cannot be seen."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for folder in Path("/proc").glob("[0-9]*"):
        # Processes of other users cannot be looked into, and any may end while we look.
        with contextlib.suppress(OSError):
            if sockets & set(_open_files(folder / "fd")):
                name = (folder / "comm").read_text(encoding="utf-8").strip()
                return f"{name} (pid {folder.name})"
    return ""


def _open_files(folder: Path) -> Iterator[str]:
    for link in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            yield os.readlink(link)


def _port_error(variable: str, port: int, error: OSError) -> ServerError:
    if error.errno != errno.EADDRINUSE:
        return ServerError(f"port {port} cannot be used: {error.strerror}", fix=f"choose another: {variable}=...")
    holder = listener_of(port) or "another process"
    return ServerError(
        f"port {port} is taken by {holder}",
        fix=f"stop it, or choose another port: {variable}={port + 1000 if port < 64000 else port - 1000}",
    )


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        lines = table.read_text(encoding="ascii").splitlines()[1:] if table.exists() else []
        for fields in map(str.split, lines):
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(fields[9])
    return inodes
