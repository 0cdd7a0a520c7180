"""`make certs` and `make keys`: secrets that nobody else may open, and that are not written over."""

import ssl
import sys
from pathlib import Path

import pytest
from cryptography import x509

from gdino_build.cli import main
from gdino_build.security.certificates import make_certificates
from gdino_build.security.keys import make_keys
from gdino_core.api_keys import read_key_file
from gdino_core.errors import ConfigError


def test_secrets_are_their_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    made = [*make_certificates(tmp_path, ["localhost"]), *make_keys(tmp_path)]
    assert len(made) == 8
    for path in made:
        assert path.stat().st_mode & 0o777 == (0o644 if path.suffix == ".pem" else 0o600)
    assert len({read_key_file(path) for path in made[-2:]}) == 2
    assert sorted(tmp_path.iterdir()) == sorted(made)  # nothing half-written is left


@pytest.mark.parametrize("command", ["certs", "keys"])
def test_what_is_there_is_replaced_only_when_told(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gdino-build", command, str(tmp_path)])
    assert main() == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main() == 1
    assert "is there already\n  fix: choose another FOLDER, or FORCE=1" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--force"])
    assert main() == 0
    assert not any(path.read_bytes() == before[path.name] for path in tmp_path.iterdir())


def test_one_key_of_two_that_is_there_keeps_the_other_from_being_written(tmp_path: Path) -> None:
    (tmp_path / "control.key").touch()
    with pytest.raises(ConfigError, match=r"control\.key is there already"):
        make_keys(tmp_path)
    assert not (tmp_path / "inference.key").exists()


def test_certificates_hold_for_the_names_and_the_side_that_they_are_made_for(tmp_path: Path) -> None:
    make_certificates(tmp_path, ["detect.example.com", "10.0.0.7"], days=3)
    server = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["detect.example.com"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7"]
    assert (server.not_valid_after_utc - server.not_valid_before_utc).days == 3
    authority = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes())
    server.verify_directly_issued_by(authority)
    assert ssl.create_default_context(cafile=tmp_path / "ca.pem").get_ca_certs()


def test_a_client_cannot_pass_for_the_server_with_its_certificate(tmp_path: Path) -> None:
    make_certificates(tmp_path, ["localhost"])
    usages = {
        name: x509.load_pem_x509_certificate((tmp_path / f"{name}.pem").read_bytes())
        .extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        .value
        for name in ("server", "client")
    }
    assert [usage._name for usage in usages["server"]] == ["serverAuth"]
    assert [usage._name for usage in usages["client"]] == ["clientAuth"]
