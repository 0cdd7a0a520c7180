"""How a client shows who it is, and knows who answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gdino_core.api_keys import INFERENCE_KEY, check_key, check_private, grpc_header
from gdino_core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """TLS and an API key; without any of them the connection is plain text.

    Attributes:
        tls_ca: PEM file of the authorities of which one has signed the server's certificate; with it TLS is used.
        tls_cert: PEM file with this client's certificate, for a server that asks for one (mutual TLS).
        tls_key: PEM file with its private key, which nobody else may open.
        tls_name: the name in the server's certificate, where it is not the host of the address.
        api_key: for a server that asks for one; never shown.

    Raises:
        ConfigError: a file is missing, others may open the private key, or one of these needs another.
    """

    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_name: str = ""
    api_key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Check that they fit each other, and that the files are there."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("a client's certificate and its key are used together", fix="give both, or none")
        if (self.tls_cert or self.tls_name) and self.tls_ca is None:
            raise ConfigError(
                "a client's certificate and tls_name are for TLS",
                fix="name the server's authority too (tls_ca, --tls-ca)",
            )
        for path in filter(None, (self.tls_ca, self.tls_cert)):
            if not path.is_file():
                raise ConfigError(f"there is no file {path}", fix="give the path of a PEM file")
        if self.tls_key:
            check_private(self.tls_key)
        if self.api_key:
            check_key(self.api_key, "api_key")

    @property
    def headers(self) -> Mapping[str, str]:
        """Of every call."""
        return {grpc_header(INFERENCE_KEY): self.api_key} if self.api_key else {}
