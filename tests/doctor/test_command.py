"""`make doctor` runs where nothing but Python is installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.doctor import recorded

ROOT = Path(__file__).parents[2]


def run_doctor(tools: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    # -S: without site-packages; the tools that are recorded come first on PATH.
    return subprocess.run(
        [sys.executable, "-S", "-m", "gdino_build.doctor", *flags],
        env={"PATH": f"{tools}{os.pathsep}{os.defpath}", "PYTHONPATH": f"{ROOT / 'build'}{os.pathsep}{ROOT}"},
        cwd=tools,
        capture_output=True,
        text=True,
        check=False,
    )


def place_tool(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_it_needs_no_package_and_tells_what_it_saw(tmp_path: Path) -> None:
    ran = run_doctor(tmp_path, "--environment", "none")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "none yet: make setup installs them" in ran.stdout
    assert "this machine can serve" in ran.stdout


def test_tools_on_the_path_are_asked(tmp_path: Path) -> None:
    place_tool(
        tmp_path, "nvidia-smi", f'case "$1" in --query-gpu*) printf "{recorded.QUERY_P40_470}";; *) cat smi.txt;; esac'
    )
    (tmp_path / "smi.txt").write_text(recorded.SMI_470)
    ran = run_doctor(tmp_path, "--environment", "none", "--json")
    report = json.loads(ran.stdout)
    assert report["facts"]["driver"]["version"] == [470, 256, 2]
    assert [gpu["name"] for gpu in report["facts"]["gpus"]] == ["Tesla P40"]
    assert any("compute capability 6.1" in finding["what"] for finding in report["findings"])


def test_a_tool_that_fails_is_told_and_not_stumbled_over(tmp_path: Path) -> None:
    place_tool(tmp_path, "nvidia-smi", "cat smi.txt; exit 18")
    (tmp_path / "smi.txt").write_text(recorded.NVML_MISMATCH)
    report = json.loads(run_doctor(tmp_path, "--environment", "none", "--json").stdout)
    assert "version mismatch" in report["facts"]["driver"]["failure"]
