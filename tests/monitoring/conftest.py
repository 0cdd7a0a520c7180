"""A real Prometheus; `make test` says where it is."""

import os
import shutil
from pathlib import Path

import pytest

_UNPACKED = Path("out/prometheus/usr/bin/prometheus")


@pytest.fixture(scope="session")
def prometheus_program() -> Path:
    found = os.environ.get("PROMETHEUS") or shutil.which("prometheus") or _UNPACKED
    if not Path(found).is_file():
        pytest.fail("there is no Prometheus: run make test, or make out/prometheus/usr/bin/prometheus")
    return Path(found).resolve()


@pytest.fixture(scope="session")
def promtool(prometheus_program: Path) -> Path:
    return prometheus_program.with_name("promtool")
