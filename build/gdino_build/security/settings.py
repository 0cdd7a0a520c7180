"""The table [security] of a profile: where the server listens, and whom it answers."""

import ipaddress
from dataclasses import dataclass

from gdino_build.server_ports import ALL_ADDRESSES, HOST
from gdino_core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SecuritySettings:
    """All files are PEM files or key files, relative to the working directory; "" for none.

    Attributes:
        address: IPv4 address that gRPC listens on.
        metrics_address: and the metrics, which have neither TLS nor keys.
        tls_cert: the server's certificate; with it TLS is used.
        tls_key: its private key.
        client_ca: authorities of clients; with it only clients with a certificate of theirs are answered.
        inference_key: file with the API key for inference and for what describes the models.
        control_key: file with the API key for all that controls the server. Where it is "" and anything else here
            protects the server, nobody has that key.
        shared_memory: whether the inference key (or certificate) opens shared memory too, and not the control key:
            who may use it can reach into the memory of other clients.
        accept_exposed: why the server may be reached from other machines without TLS, without asking who calls, or its
            metrics so; "" refuses it.
        probe_ca: with what the program that starts the server asks whether it is ready: authorities of tls_cert,
        probe_cert: a certificate of client_ca,
        probe_key: its private key,
        probe_name: and a name in tls_cert, where 127.0.0.1 (or the address) is not in it.

    Raises:
        ConfigError: a value is wrong, needs another, or exposes the server without a reason.
    """

    address: str = HOST
    metrics_address: str = HOST
    tls_cert: str = ""
    tls_key: str = ""
    client_ca: str = ""
    inference_key: str = ""
    control_key: str = ""
    shared_memory: bool = False
    accept_exposed: str = ""
    probe_ca: str = ""
    probe_cert: str = ""
    probe_key: str = ""
    probe_name: str = ""

    def __post_init__(self) -> None:
        """Check every value, and what it leaves open."""
        for name in ("address", "metrics_address"):
            _check_address(name, getattr(self, name))
        for name, other in (
            ("tls_cert", "tls_key"),
            ("tls_key", "tls_cert"),
            ("client_ca", "tls_cert"),
            ("tls_cert", "probe_ca"),
            ("client_ca", "probe_cert"),
            ("probe_cert", "probe_key"),
        ):
            if getattr(self, name) and not getattr(self, other):
                raise ConfigError(f"[security] has {name} and no {other}", fix=f"name a file: {other} = ...")
        if self.inference_key and self.inference_key == self.control_key:
            raise ConfigError(
                "[security] inference_key and control_key are one file", fix="give each a key of its own: make keys"
            )
        if not self.accept_exposed:
            for problem in self.exposures():
                raise ConfigError(
                    f"[security] {problem}",
                    fix='mend it, or say in words why it may be so: accept_exposed = "a gateway alone can reach it"',
                )

    @property
    def is_protected(self) -> bool:
        """Whether anything is asked of clients, so that control must not stand open beside it."""
        return bool(self.tls_cert or self.inference_key or self.control_key or not _is_loopback(self.address))

    def exposures(self) -> list[str]:
        """What other machines can reach or read, in words; empty where nothing needs a reason."""
        found = []
        if not _is_loopback(self.address):
            where = f"address {self.address} is reached from other machines"
            if not self.tls_cert:
                found.append(f"{where}, and what they send is in plain text: there is no tls_cert")
            if not (self.client_ca or self.inference_key):
                found.append(f"{where}, and anybody is answered: there is no client_ca and no inference_key")
        if not _is_loopback(self.metrics_address):
            found.append(f"metrics_address {self.metrics_address} shows the metrics to anybody, in plain text")
        return found


def _is_loopback(address: str) -> bool:
    return ipaddress.IPv4Address(address).is_loopback


def _check_address(name: str, address: str) -> None:
    try:
        ipaddress.IPv4Address(address)
    except ValueError as error:
        raise ConfigError(
            f"[security] {name} is {address!r}", fix=f"write an IPv4 address: {HOST}, or {ALL_ADDRESSES} for all"
        ) from error
