"""Make an authority, and certificates of a server and of a client: for tests and for closed networks."""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gdino_build.whole_file import refuse_overwriting, write_private
from gdino_core.errors import ConfigError

DEFAULT_NAMES: Final = ("localhost", "127.0.0.1")
DEFAULT_DAYS: Final = 90
_CLOCKS_DIFFER: Final = datetime.timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class _Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_certificates(
    folder: Path, names: Sequence[str], *, days: int = DEFAULT_DAYS, force: bool = False
) -> list[Path]:
    """Write ca.pem, server.pem and client.pem, each with its .key.

    The authority's key is written too, so that more clients can be given certificates; whoever has it can.

    Args:
        folder: where; made when missing.
        names: host names and IP addresses at which clients reach the server.
        days: for which they are valid.
        force: replace what is there.

    Returns:
        The files.

    Raises:
        ConfigError: a file is there already, or a name is none.
    """
    paths = [folder / f"{name}.{kind}" for name in ("ca", "server", "client") for kind in ("pem", "key")]
    if not force:
        refuse_overwriting(paths)
    until = datetime.timedelta(days=days)
    authority = _make_authority(until)
    pairs = (
        authority,
        _make_signed("gdino server", authority, until, ExtendedKeyUsageOID.SERVER_AUTH, names),
        _make_signed("gdino client", authority, until, ExtendedKeyUsageOID.CLIENT_AUTH, ()),
    )
    for pair, certificate, key in zip(pairs, paths[::2], paths[1::2], strict=True):
        write_private(key, pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        write_private(certificate, pair.certificate.public_bytes(Encoding.PEM))
        certificate.chmod(0o644)
    return paths


def _make_authority(until: datetime.timedelta) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("gdino test authority")
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder(name, name, key, until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return _Pair(certificate=builder.sign(key, hashes.SHA256()), key=key)


def _make_signed(
    name: str, authority: _Pair, until: datetime.timedelta, usage: x509.ObjectIdentifier, names: Sequence[str]
) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate.subject
    builder = (
        _builder(_name(name), issuer, key, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([*map(_alternative_name, names)]), critical=False)
    return _Pair(certificate=builder.sign(authority.key, hashes.SHA256()), key=key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, until: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no host name", fix="write such as detect.example.com or 10.0.0.7") from error
