"""Run Grafana on loopback with the project's dashboard, where it is installed."""

import shutil
from pathlib import Path
from typing import Final

from gdino_build.monitoring.background import WebProgram
from gdino_build.server_ports import HOST
from gdino_build.whole_file import write_text
from gdino_core.errors import ConfigError

SOURCES: Final = Path("monitoring/grafana")
_PACKAGED_HOME: Final = Path("/usr/share/grafana")  # of Grafana Labs' packages for Debian and Red Hat
_DATA_SOURCE, _DASHBOARDS = "datasources/prometheus.yml", "dashboards/gdino.yml"
_IN_COMPOSE: Final = {_DATA_SOURCE: "http://prometheus:9090", _DASHBOARDS: "/var/lib/grafana/dashboards"}


def find_grafana() -> Path | None:
    """The program `grafana`, None where it is not on PATH."""
    found = shutil.which("grafana")
    return Path(found).resolve() if found else None


def write_provisioning(folder: Path, prometheus_url: str) -> None:
    """Copy monitoring/grafana/provisioning/ for this machine.

    Args:
        folder: to write.
        prometheus_url: that the dashboard asks.

    Raises:
        ConfigError: a file of the project does not name what it names for docker/compose.yaml.
    """
    here = {_DATA_SOURCE: prometheus_url, _DASHBOARDS: str((SOURCES / "dashboards").resolve())}
    for name, old in _IN_COMPOSE.items():
        source = SOURCES / "provisioning" / name
        text = source.read_text(encoding="utf-8")
        if text.count(old) != 1:
            raise ConfigError(f"{source} names {old} {text.count(old)} times", fix="name it once")
        write_text(folder / name, text.replace(old, here[name]))


def grafana(program: Path, folder: Path, port: int) -> WebProgram:
    """What to run; anybody on this machine may look, and nobody change.

    Args:
        program: from `find_grafana`.
        folder: with the folder `provisioning`; what it keeps is beside that.
        port: of its web page, on loopback.
    """
    folder = folder.resolve()
    unpacked = program.parents[1]  # an archive has bin/grafana beside conf/ and public/
    home = unpacked if (unpacked / "conf").is_dir() else _PACKAGED_HOME
    return WebProgram(
        command=[str(program), "server", f"--homepath={home}"],
        port=port,
        port_variable="GRAFANA_PORT",
        health_path="/api/health",
        log_file=folder / "grafana.log",
        environment={
            "GF_SERVER_HTTP_ADDR": HOST,
            "GF_SERVER_HTTP_PORT": str(port),
            "GF_PATHS_DATA": str(folder / "data"),
            "GF_PATHS_LOGS": str(folder / "logs"),
            "GF_PATHS_PLUGINS": str(folder / "plugins"),
            "GF_PATHS_PROVISIONING": str(folder / "provisioning"),
            "GF_AUTH_ANONYMOUS_ENABLED": "true",
            "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        },
    )
