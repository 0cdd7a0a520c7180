"""Read the panels of the Grafana dashboard."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DASHBOARD: Final = Path("monitoring/grafana/dashboards/gdino.json")
DASHBOARD_PAGE: Final = "/d/gdino"  # in Grafana, by the uid in that file


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel: its title, and its queries in PromQL, of all servers."""

    title: str
    queries: tuple[str, ...]


def read_panels() -> list[Panel]:
    """All panels, in their order."""
    content = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [
        Panel(title=panel["title"], queries=tuple(_of_all(target["expr"]) for target in panel["targets"]))
        for panel in content["panels"]
        if "targets" in panel  # not a heading
    ]


def _of_all(query: str) -> str:
    """With the choice of a server, a variable of Grafana's, filled in."""
    return query.replace("$instance", ".+")
