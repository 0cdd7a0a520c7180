"""Turn [security] into flags of tritonserver, and into what gets our own programs past them."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gdino_build.security.settings import SecuritySettings
from gdino_client import Credentials
from gdino_core.api_keys import CONTROL_KEY, INFERENCE_KEY, check_private, grpc_header, read_key_file
from gdino_core.errors import ConfigError

# Triton's protocols by the key that opens them. "health" stays open: probes of orchestrators have no key, and it says
# no more than yes or no. Clients read the contract's version in "model-config".
INFERENCE_PROTOCOLS: Final = ("inference", "metadata", "model-config")
CONTROL_PROTOCOLS: Final = ("model-repository", "statistics", "trace", "logging")
SHARED_MEMORY_PROTOCOL: Final = "shared-memory"


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who gets in, with the keys themselves.

    Attributes:
        settings: [security] of the profile.
        inference_key: "" where none is asked for.
        control_key: "" where control stands open, on a server that nothing protects.
    """

    settings: SecuritySettings = field(default_factory=SecuritySettings)
    inference_key: str = field(default="", repr=False)
    control_key: str = field(default="", repr=False)

    @property
    def credentials(self) -> Credentials:
        """Of a client of our own."""
        return Credentials(
            tls_ca=_path(self.settings.probe_ca),
            tls_cert=_path(self.settings.probe_cert),
            tls_key=_path(self.settings.probe_key),
            tls_name=self.settings.probe_name,
            api_key=self.inference_key,
        )

    @property
    def control_headers(self) -> Mapping[str, str]:
        """Of a call that controls the server."""
        return {grpc_header(CONTROL_KEY): self.control_key} if self.control_key else {}

    def flags(self, *, http: bool) -> list[str]:
        """Flags of tritonserver.

        Args:
            http: whether HTTP is served too: on loopback, as it has no TLS, and with the same keys.
        """
        settings = self.settings
        flags = [f"--grpc-address={settings.address}", f"--metrics-address={settings.metrics_address}"]
        if settings.tls_cert:
            # Triton takes one of these two, and the second for both.
            flags += [f"--grpc-use-ssl{'-mutual' if settings.client_ca else ''}=true"]
            flags += [f"--grpc-server-cert={settings.tls_cert}", f"--grpc-server-key={settings.tls_key}"]
        if settings.client_ca:
            flags += [f"--grpc-root-cert={settings.client_ca}"]
        for protocols, name, key in self._restrictions():
            flags += [f"--grpc-restricted-protocol={','.join(protocols)}:{name}={key}"]
            flags += [f"--http-restricted-api={','.join(protocols)}:{name}={key}"] if http else []
        return flags

    def _restrictions(self) -> list[tuple[tuple[str, ...], str, str]]:
        shared = (SHARED_MEMORY_PROTOCOL,)
        for_clients, for_control = (shared, ()) if self.settings.shared_memory else ((), shared)
        wanted = [
            (INFERENCE_PROTOCOLS + for_clients, INFERENCE_KEY, self.inference_key),
            (CONTROL_PROTOCOLS + for_control, CONTROL_KEY, self.control_key),
        ]
        return [(protocols, name, key) for protocols, name, key in wanted if key]


def open_access(settings: SecuritySettings) -> Access:
    """Read the keys that [security] names, and check the files that tritonserver is to read.

    Raises:
        ConfigError: a file is missing, others may open a secret one, or both keys are the same.
    """
    for path in filter(None, (settings.tls_cert, settings.client_ca)):
        if not Path(path).is_file():
            raise ConfigError(f"there is no file {path}, which [security] names", fix="make certs makes some for tests")
    if settings.tls_key:
        check_private(Path(settings.tls_key))
    inference = read_key_file(Path(settings.inference_key)) if settings.inference_key else ""
    control = read_key_file(Path(settings.control_key)) if settings.control_key else ""
    if inference and inference == control:
        raise ConfigError(
            f"{settings.inference_key} and {settings.control_key} hold the same key", fix="make keys FORCE=1"
        )
    if settings.is_protected and not control:
        control = secrets.token_urlsafe(32)  # nobody's but this program's
    return Access(settings=settings, inference_key=inference, control_key=control)


def _path(name: str) -> Path | None:
    return Path(name) if name else None
