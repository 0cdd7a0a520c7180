"""Watch a running server."""

import argparse
import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from gdino_build.commands.stage import Commands, add_out

_EXAMPLES = """examples:
  gdino-build monitor --prometheus out/prometheus/usr/bin/prometheus
  METRICS_PORT=9002 gdino-build monitor --port 9091
"""


def register(commands: Commands) -> None:
    """Add this command."""
    text = "run a Prometheus with our rules and alerts beside a server on this machine"
    command = commands.add_parser(
        "monitor",
        help=text,
        description=text[0].upper() + text[1:] + ". METRICS_PORT is the server's.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=_monitor)
    command.add_argument("--prometheus", default="prometheus", help="program (default: the one on PATH)")
    command.add_argument("--port", type=_port, default=9090, help="of its web page, on loopback (default: %(default)s)")
    text = "of Grafana's, where it is installed (default: %(default)s)"
    command.add_argument("--grafana-port", type=_port, default=3000, help=text)
    add_out(command)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text} is no port from 1 to 65535")
    return int(text)


def _monitor(arguments: argparse.Namespace) -> None:
    from gdino_build.monitoring.prometheus import find_prometheus, running_prometheus, write_config
    from gdino_build.monitoring.telling import tell_alerts
    from gdino_build.serve import sigterm_as_interrupt
    from gdino_build.server_ports import ServerPorts

    folder: Path = arguments.out / "monitor"
    program = find_prometheus(arguments.prometheus)
    ports = ServerPorts.from_environment(os.environ)
    config = write_config(folder / "config", ports.metrics)
    with (
        sigterm_as_interrupt(),
        contextlib.suppress(KeyboardInterrupt),
        running_prometheus(program, config, folder / "data", arguments.port) as prometheus,
        _running_dashboard(folder / "grafana", arguments.grafana_port, prometheus.url),
    ):
        print(f"Prometheus scrapes the server at port {ports.metrics}: {prometheus.url} draws these queries")
        print(f"alerts that fire are told here; Ctrl-C stops it, {folder / 'data'} keeps 7 days", flush=True)
        tell_alerts(prometheus, partial(print, flush=True))
    print("Prometheus stopped")


@contextlib.contextmanager
def _running_dashboard(folder: Path, port: int, prometheus_url: str) -> Iterator[None]:
    """Show the dashboard in Grafana where that is installed, else tell its queries."""
    from gdino_build.monitoring.dashboard import DASHBOARD, DASHBOARD_PAGE, read_panels
    from gdino_build.monitoring.grafana import find_grafana, grafana, write_provisioning

    program = find_grafana()
    if program is None:
        print(f"Grafana is not installed (docker/compose.yaml starts one); {DASHBOARD} asks:")
    else:
        write_provisioning(folder / "provisioning", prometheus_url)
    for panel in read_panels():
        for query in panel.queries:
            print(f"  {panel.title:<32} {query}")
    if program is None:
        yield
        return
    web = grafana(program, folder, port)
    with web.running():
        print(f"Grafana shows them: {web.url}{DASHBOARD_PAGE}")
        yield
