"""What a client shows of itself, and what it refuses to show."""

from pathlib import Path

import pytest

from gdino_client import Client, ConfigError, Credentials
from gdino_core.api_keys import read_key_file

KEY = "qPzT8vJY3nH0sWmXk5bLrD1cF7gA9eU2"


def test_a_key_is_never_sent_to_another_machine_in_plain_text() -> None:
    with pytest.raises(ConfigError, match=r"would go to 192\.0\.2\.1:8001 in plain text"):
        Client("192.0.2.1:8001", credentials=Credentials(api_key=KEY))
    Client("localhost:8001", credentials=Credentials(api_key=KEY)).close()  # does not leave this machine


def test_a_key_is_not_shown_where_credentials_are_printed() -> None:
    assert KEY not in repr(Credentials(api_key=KEY))


@pytest.mark.parametrize("key", ["short", f"{KEY},more", f"{KEY}\nx: y"])
def test_what_triton_would_read_as_another_flag_is_no_key(key: str) -> None:
    with pytest.raises(ConfigError, match="api_key holds no API key") as caught:
        Credentials(api_key=key)
    assert key not in str(caught.value)


def test_files_that_need_another_or_are_not_there_are_named(tmp_path: Path) -> None:
    there = tmp_path / "there.pem"
    there.touch(mode=0o600)
    with pytest.raises(ConfigError, match="a client's certificate and its key are used together"):
        Credentials(tls_ca=there, tls_cert=there)
    with pytest.raises(ConfigError, match="name the server's authority too"):
        Credentials(tls_cert=there, tls_key=there)
    with pytest.raises(ConfigError, match=r"there is no file .*ca\.pem"):
        Credentials(tls_ca=tmp_path / "ca.pem")
    there.chmod(0o640)
    with pytest.raises(ConfigError, match=r"others may open .*there\.pem.*\n  fix: chmod 600"):
        Credentials(tls_ca=there, tls_cert=there, tls_key=there)


def test_a_key_file_that_others_may_open_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "inference.key"
    file.write_text(f"{KEY}\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match=r"others may open .*inference\.key, which holds a secret \(-rw-r--r--\)"):
        read_key_file(file)
    file.chmod(0o600)
    assert read_key_file(file) == KEY
    with pytest.raises(ConfigError, match=r"none\.key cannot be read: No such file"):
        read_key_file(tmp_path / "none.key")
