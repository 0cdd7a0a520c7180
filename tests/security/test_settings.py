"""[security] leaves nothing open without a word, and becomes the flags that Triton needs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gdino_build.profile import load_profile
from gdino_build.security.access import Access, open_access
from gdino_build.security.settings import SecuritySettings
from gdino_core.errors import ConfigError
from tests.security.conftest import Secrets

TLS: dict[str, Any] = {"tls_cert": "server.pem", "tls_key": "server.key", "probe_ca": "ca.pem"}


def test_without_a_word_the_server_is_reached_from_this_machine_alone() -> None:
    settings = SecuritySettings()
    assert settings.exposures() == []
    assert Access().flags(http=False) == ["--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1"]
    assert not settings.is_protected  # gdino status, shared memory and statistics work on a developer's machine


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"address": "0.0.0.0"}, "what they send is in plain text: there is no tls_cert"),
        ({"address": "10.0.0.7", "inference_key": "a.key"}, "what they send is in plain text"),
        ({"address": "10.0.0.7", **TLS}, "anybody is answered: there is no client_ca and no inference_key"),
        ({"metrics_address": "0.0.0.0"}, "metrics_address 0.0.0.0 shows the metrics to anybody"),
    ],
)
def test_an_address_that_others_reach_needs_tls_and_a_question_who_asks_or_a_reason_in_words(
    settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        SecuritySettings(**settings)
    assert "say in words why it may be so: accept_exposed" in caught.value.fix
    accepted = SecuritySettings(**settings, accept_exposed="a gateway alone can reach it")
    assert any(problem in exposure for exposure in accepted.exposures())


@pytest.mark.parametrize(
    "asked", [{"inference_key": "a.key"}, {"client_ca": "ca.pem", "probe_cert": "c", "probe_key": "k"}]
)
def test_an_address_with_tls_that_asks_who_calls_needs_no_reason(asked: dict[str, Any]) -> None:
    assert SecuritySettings(address="0.0.0.0", **TLS, **asked).exposures() == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"address": "localhost"}, r"\[security\] address is 'localhost'\n  fix: write an IPv4 address"),
        ({"tls_cert": "server.pem"}, r"has tls_cert and no tls_key"),
        ({"tls_cert": "a", "tls_key": "b"}, r"has tls_cert and no probe_ca"),
        ({**TLS, "client_ca": "ca.pem"}, r"has client_ca and no probe_cert"),
        ({"client_ca": "ca.pem"}, r"has client_ca and no tls_cert"),
        ({"inference_key": "k", "control_key": "k"}, r"inference_key and control_key are one file"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SecuritySettings(**settings)


def test_the_flags_ask_for_certificates_and_keys_of_http_too(secrets: Secrets) -> None:
    access = secrets.access()
    flags = access.flags(http=True)
    inference = f"inference,metadata,model-config:gdino-inference-key={access.inference_key}"
    control = f"model-repository,statistics,trace,logging,shared-memory:gdino-control-key={access.control_key}"
    assert flags == [
        "--grpc-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
        "--grpc-use-ssl-mutual=true",
        f"--grpc-server-cert={secrets.file('server.pem')}",
        f"--grpc-server-key={secrets.file('server.key')}",
        f"--grpc-root-cert={secrets.file('ca.pem')}",
        f"--grpc-restricted-protocol={inference}",
        f"--http-restricted-api={inference}",
        f"--grpc-restricted-protocol={control}",
        f"--http-restricted-api={control}",
    ]
    assert access.inference_key not in repr(access)
    assert access.control_key not in repr(access)


def test_control_never_stands_open_beside_a_protected_inference(secrets: Secrets) -> None:
    settings = replace(secrets.settings(), control_key="", client_ca="", shared_memory=True)
    first, second = open_access(settings), open_access(settings)
    assert first.control_key != second.control_key  # nobody's
    assert len(first.control_key) == 43
    restricted = [flag for flag in first.flags(http=False) if "restricted" in flag]
    assert [flag.partition("=")[2].partition(":")[0] for flag in restricted] == [
        "inference,metadata,model-config,shared-memory",
        "model-repository,statistics,trace,logging",
    ]


def test_secret_files_that_others_may_open_stop_the_server_before_it_starts(secrets: Secrets, tmp_path: Path) -> None:
    for name in ("tls_key", "inference_key", "control_key"):
        loose = tmp_path / name
        loose.write_bytes(Path(getattr(secrets.settings(), name)).read_bytes())
        loose.chmod(0o640)
        with pytest.raises(ConfigError, match=rf"others may open .*{name}.*\n  fix: chmod 600 "):
            open_access(replace(secrets.settings(), **{name: str(loose)}))


def test_a_profile_has_the_table_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text('extends = "demo-cpu"\n[security]\ninference_key = "keys/inference.key"\n')
    assert load_profile(str(profile)).security == SecuritySettings(inference_key="keys/inference.key")
    profile.write_text('extends = "demo-cpu"\n[security]\naddress = "0.0.0.0"\n')
    with pytest.raises(ConfigError, match="there is no tls_cert"):
        load_profile(str(profile))
    profile.write_text('extends = "demo-cpu"\n[security]\ntls = true\n')
    with pytest.raises(ConfigError, match=r"\[security\] has the unknown key tls"):
        load_profile(str(profile))
