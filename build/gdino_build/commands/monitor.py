"""Watch a running server."""

import argparse
import contextlib
import os
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
    command.add_argument("--port", type=int, default=9090, help="of its web page, on loopback (default: %(default)s)")
    add_out(command)


def _monitor(arguments: argparse.Namespace) -> None:
    from gdino_build.monitoring.dashboard import DASHBOARD, read_panels
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
    ):
        print(f"{DASHBOARD} has these panels for Grafana (docker/compose.yaml starts one):")
        for panel in read_panels():
            for query in panel.queries:
                print(f"  {panel.title:<32} {query}")
        print(f"Prometheus scrapes the server at port {ports.metrics}: {prometheus.url} draws these queries")
        print(f"alerts that fire are told here; Ctrl-C stops it, {folder / 'data'} keeps 7 days", flush=True)
        tell_alerts(prometheus, partial(print, flush=True))
    print("Prometheus stopped")
