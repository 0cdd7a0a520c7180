"""One guarded server, and one gateway before it, for all tests of this folder."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gdino_build.security.access import Access, open_access
from gdino_build.security.certificates import DEFAULT_NAMES, make_certificates
from gdino_build.security.keys import make_keys
from gdino_build.security.settings import SecuritySettings
from gdino_build.serve import RunningServer, running_server
from gdino_client import Credentials
from gdino_core.api_keys import read_key_file
from tests.security.gateway import Gateway, running_gateway

REPOSITORY = Path("out/demo-cpu/repository")


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """Certificates and keys in a folder, made by `make certs` and `make keys`."""

    folder: Path

    def file(self, name: str) -> str:
        return str(self.folder / name)

    def settings(self) -> SecuritySettings:
        """Mutual TLS, and both keys."""
        return SecuritySettings(
            tls_cert=self.file("server.pem"),
            tls_key=self.file("server.key"),
            client_ca=self.file("ca.pem"),
            inference_key=self.file("inference.key"),
            control_key=self.file("control.key"),
            probe_ca=self.file("ca.pem"),
            probe_cert=self.file("client.pem"),
            probe_key=self.file("client.key"),
        )

    def access(self) -> Access:
        return open_access(self.settings())


@pytest.fixture(scope="session")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Secrets:
    folder = tmp_path_factory.mktemp("secrets")
    make_certificates(folder, DEFAULT_NAMES)
    make_keys(folder)
    return Secrets(folder=folder)


@pytest.fixture(scope="session")
def server(secrets: Secrets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Asks for a certificate and a key."""
    log_file = tmp_path_factory.mktemp("server") / "server.log"
    with running_server(REPOSITORY, log_file=log_file, access=secrets.access()) as running:
        yield running


@pytest.fixture(scope="session")
def credentials(server: RunningServer) -> Credentials:
    """Of a client that the server answers."""
    return server.access.credentials


@pytest.fixture(scope="session")
def gateway_folder(secrets: Secrets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a gateway reads: a certificate of its own, the keys of two clients, and how it asks the server."""
    folder = tmp_path_factory.mktemp("gateway")
    make_certificates(folder, DEFAULT_NAMES)
    shutil.copy(secrets.folder / "ca.pem", folder / "upstream-ca.pem")
    for kind in ("pem", "key"):
        shutil.copy(secrets.folder / f"client.{kind}", folder / f"upstream-client.{kind}")
    (folder / "upstream.map").write_text(f'default "{read_key_file(secrets.folder / "inference.key")}";\n')
    for client in ("alice", "bob"):
        make_keys(folder / client)
    keys = {client: read_key_file(folder / client / "inference.key") for client in ("alice", "bob")}
    (folder / "keys.map").write_text("".join(f'"{key}" "{client}";\n' for client, key in keys.items()))
    return folder


@pytest.fixture(scope="session")
def gateway(server: RunningServer, gateway_folder: Path) -> Iterator[Gateway]:
    with running_gateway(gateway_folder, server.grpc_url) as running:
        yield running


@pytest.fixture(scope="session")
def alice(gateway_folder: Path) -> Credentials:
    """A client that the gateway answers."""
    return Credentials(
        tls_ca=gateway_folder / "ca.pem", api_key=read_key_file(gateway_folder / "alice" / "inference.key")
    )


@pytest.fixture(scope="session")
def bob(gateway_folder: Path, alice: Credentials) -> Credentials:
    """Another one."""
    return replace(alice, api_key=read_key_file(gateway_folder / "bob" / "inference.key"))
