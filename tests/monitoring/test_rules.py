"""Rules, alerts and panels that a Prometheus takes, and that speak of what is there."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from gdino_build.monitoring.dashboard import read_panels
from gdino_build.monitoring.prometheus import CONFIG_FOLDER, find_prometheus, write_config
from gdino_core.errors import ConfigError

TEST = Path("tests/monitoring/alerts.test.yml")
ALERTS = CONFIG_FOLDER / "rules" / "alerts.yml"
RECORDED = r"gdino:\w+:\w+"
RECORDING = CONFIG_FOLDER / "rules" / "recording.yml"


def run(*command: object) -> str:
    done = subprocess.run([str(one) for one in command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def names(pattern: str, path: Path) -> set[str]:
    return set(re.findall(pattern, path.read_text()))


def test_prometheus_takes_the_configuration_and_its_rules(promtool: Path) -> None:
    said = run(promtool, "check", "config", CONFIG_FOLDER / "prometheus.yml")
    assert "2 rule files found" in said


def test_alerts_fire_when_they_should_and_only_then(promtool: Path) -> None:
    run(promtool, "test", "rules", TEST)


def test_every_alert_is_seen_to_fire_and_says_what_to_do() -> None:
    alerts = names(r"- alert: (\w+)", ALERTS)
    assert names(r'alertname="(\w+)"', TEST) == alerts
    text = ALERTS.read_text()
    for field in ("severity:", "summary:", "description:", "runbook:"):
        assert text.count(field) == len(alerts), field
    heading = next(iter(names(r'runbook: "README\.md#([\w-]+)"', ALERTS)))
    assert re.search(rf"^#+ {heading}$", Path("README.md").read_text(), re.IGNORECASE | re.MULTILINE)


def test_panels_and_alerts_ask_for_rules_that_are_there() -> None:
    recorded = names(r"record: ([\w:]+)", RECORDING)
    asked = {name for panel in read_panels() for query in panel.queries for name in re.findall(RECORDED, query)}
    assert asked
    assert asked <= recorded
    assert names(RECORDED, ALERTS) <= recorded


def test_every_panel_asks_in_promql_a_gpus_too(promtool: Path, tmp_path: Path) -> None:
    queries = [query for panel in read_panels() for query in panel.queries]
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))  # JSON is YAML
    assert f"SUCCESS: {len(queries)} rules found" in run(promtool, "check", "rules", file)


def test_a_local_prometheus_scrapes_the_local_server(promtool: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "config", 9002, interval_s=1)
    text = config.read_text()
    assert '"127.0.0.1:9002"' in text
    assert text.count("interval: 1s") == 2
    run(promtool, "check", "config", config)


def test_a_prometheus_that_is_not_there_is_told_with_how_to_get_it() -> None:
    with pytest.raises(ConfigError, match="there is no program /none/prometheus\n  fix: install the Debian package"):
        find_prometheus("/none/prometheus")
