"""Tell in a terminal which alerts begin to fire and which are over."""

import contextlib
import http.client
import time
from collections.abc import Callable
from typing import Final

from gdino_build.monitoring.prometheus import Prometheus

_INTERVAL_S: Final = 1.0
Alerts = dict[tuple[tuple[str, str], ...], dict[str, str]]  # annotations by labels, which stay while an alert fires


def tell_alerts(prometheus: Prometheus, tell: Callable[[str], None]) -> None:
    """Tell of each alert once when it begins and once when it ends, until interrupted.

    Raises:
        ServerError: Prometheus has ended.
    """
    known: Alerts = {}
    while True:
        prometheus.check_running()
        with contextlib.suppress(OSError, http.client.HTTPException):  # busy: asked again soon
            found = {tuple(sorted(one["labels"].items())): one["annotations"] for one in prometheus.firing_alerts()}
            for line in changes(known, found):
                tell(f"{time.strftime('%H:%M:%S')} {line}")
            known = found
        time.sleep(_INTERVAL_S)


def changes(known: Alerts, found: Alerts) -> list[str]:
    """What has begun, with what to do, and what is over."""
    begun = [(dict(key), found[key]) for key in found if key not in known]
    over = [(dict(key), known[key]) for key in known if key not in found]
    return [
        *(f"{one['alertname']} ({one['severity']}): {text['summary']}\n  {text['description']}" for one, text in begun),
        *(f"{one['alertname']} is over: {text['summary']}" for one, text in over),
    ]
