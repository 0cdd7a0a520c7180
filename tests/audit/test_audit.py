"""`make audit` with the real tools: it fails for what it should find, and for what it could not look up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gdino_build.audit.licences import LicencePolicy, Package, load_policy, read_packages
from gdino_build.audit.tools import AuditTools
from gdino_build.audit.vulnerabilities import read_answer
from gdino_build.cli import main
from gdino_core.errors import ConfigError
from tests.audit.osv_server import osv_server

TOOLS = Path(".venv-audit")
VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()) or "valid")
"""


def audit(monkeypatch: pytest.MonkeyPatch, out: Path, osv_url: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gdino-build", "audit", "--out", str(out), "--osv-url", osv_url])
    return main()


def validate(bill: str) -> str:
    python = TOOLS / "tools" / "bin" / "python"
    return subprocess.run([python, "-c", VALIDATE], input=bill, capture_output=True, text=True, check=True).stdout


def test_a_clean_audit_looks_every_package_up_and_writes_a_valid_bill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with osv_server() as osv:
        assert audit(monkeypatch, tmp_path, osv.url) == 0
    bill = json.loads((tmp_path / "sbom.json").read_text())
    components = {(one["name"].lower(), one["version"]) for one in bill["components"]}
    assert {(name.lower(), version) for name, version in osv.asked} == {
        (name.replace("_", "-"), version) for name, version in components
    }
    pins = {"numpy": "1.26.4", "openvino": "2026.4.1", "pillow": "13.0.0", "nvidia-pytriton": "0.7.0"}
    assert pins.items() <= dict(components).items()
    assert not {"torch", "pip", "pytest", "groundingdino-triton"} & dict(components).keys()
    assert bill["metadata"]["component"]["name"] == "groundingdino-triton"
    assert validate(json.dumps(bill)).strip() == "valid"
    del bill["components"][0]["name"]
    assert "name" in validate(json.dumps(bill))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["licences.md", "sbom.json"]


def test_a_known_vulnerability_fails_the_audit_with_its_number_and_the_version_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with osv_server(vulnerable="pillow") as osv:
        assert audit(monkeypatch, tmp_path, osv.url) == 1
    said = capsys.readouterr().err
    assert "pillow 13.0.0: " in said
    assert "GHSA-j7hp-h8jx-5ppr" in said
    assert "CVE-2023-4863" in said
    assert "fixed in 99.0.0" in said


def test_a_database_that_does_not_answer_is_no_clean_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with osv_server() as osv:
        gone = osv.url
    assert audit(monkeypatch, tmp_path, gone) == 1
    assert "pip-audit failed" in capsys.readouterr().err
    assert (tmp_path / "sbom.json").is_file()  # what could be told is there


def test_a_package_that_was_not_looked_up_is_no_clean_audit() -> None:
    # As pip-audit 2.10.1 was seen to print before a registry that does not know the service; its exit code was 0.
    printed = '{"dependencies": [{"name": "click", "skip_reason": "Dependency not found on PyPI"}], "fixes": []}'
    answer = read_answer(printed)
    assert answer.looked_up == 0
    assert answer.problems() == ["not looked up: click (Dependency not found on PyPI)"]


def test_every_package_that_serves_or_asks_has_a_licence_that_is_allowed() -> None:
    packages, policy = read_packages(AuditTools(folder=TOOLS)), load_policy()
    assert len(packages) > 15
    assert [package for package in packages if policy.verdict(package) is None] == []
    needed = {(package.name, package.licence) for package in packages}
    assert policy.exceptions.keys() <= needed  # none that nobody needs any more


@pytest.mark.parametrize(
    ("licence", "verdict"),
    [
        ("MIT", "allowed"),
        ("MIT AND BSD-3-Clause", "allowed"),
        ("GPL-3.0-only OR MIT", "allowed"),
        ("MIT License; BSD-3-Clause", "allowed"),
        ("GPL-3.0-only", None),
        ("MIT AND GPL-3.0-only", None),
        ("MIT License; GPL-3.0-only", None),
        ("UNKNOWN", None),
    ],
)
def test_of_several_licences_all_must_be_allowed_and_of_a_choice_one(licence: str, verdict: str | None) -> None:
    policy = LicencePolicy(allowed=frozenset({"MIT", "MIT License", "BSD-3-Clause"}), exceptions={})
    assert policy.verdict(Package(name="some", version="1", licence=licence, url="")) == verdict


def test_an_exception_is_of_one_package_and_licence_with_its_reason() -> None:
    policy = LicencePolicy(allowed=frozenset(), exceptions={("tqdm", "MPL-2.0"): "unchanged"})
    assert policy.verdict(Package(name="tqdm", version="1", licence="MPL-2.0", url="")) == "unchanged"
    assert policy.verdict(Package(name="other", version="1", licence="MPL-2.0", url="")) is None
    assert policy.verdict(Package(name="tqdm", version="2", licence="GPL-3.0-only", url="")) is None


def test_an_audit_without_its_tools_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there are no tools in .*\n  fix: .*make_environments\.sh"):
        AuditTools(folder=tmp_path)
