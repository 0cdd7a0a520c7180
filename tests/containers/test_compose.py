"""compose.yaml is what Docker Compose reads, and confines what it starts."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gdino_build.monitoring.prometheus import CONFIG_FOLDER
from tests.containers.dockerfiles import FOLDER, texts, versions

SCHEMA = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
FILES = ("compose.yaml", "compose.gpu.yaml")


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return content


SERVICES = read("compose.yaml")["services"]


@pytest.mark.parametrize("name", FILES)
def test_the_schema_of_the_specification_holds(name: str) -> None:
    jsonschema.Draft7Validator(SCHEMA).validate(read(name))


def test_the_schema_would_find_a_misspelt_key() -> None:
    content = read("compose.yaml")
    content["services"]["server"]["read_onyl"] = True
    with pytest.raises(jsonschema.ValidationError, match="read_onyl"):
        jsonschema.Draft7Validator(SCHEMA).validate(content)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined_and_listens_on_loopback_alone(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service["ports"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_variables_come_from_the_file_of_versions_or_are_asked_for() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    plain = set(re.findall(r"\$\{(\w+)\}", text))
    assert plain <= versions().keys()
    assert set(re.findall(r"\$\{(\w+):\?", text)) == {"REPOSITORY", "GRAFANA_PASSWORD"}
    assert texts(FOLDER / "server.Dockerfile", "ARG") == list(SERVICES["server"]["build"]["args"])


def test_files_that_are_mounted_are_there() -> None:
    mounts = [volume for service in SERVICES.values() for volume in service["volumes"] if volume["type"] == "bind"]
    sources = [FOLDER / mount["source"] for mount in mounts if not mount["source"].startswith("$")]
    assert sources
    for source in sources:
        assert source.is_dir(), source
    assert (FOLDER / "../monitoring/prometheus").resolve() == CONFIG_FOLDER.resolve()


def test_prometheus_and_grafana_find_what_they_are_told() -> None:
    scraped = yaml.safe_load((CONFIG_FOLDER / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"]
    assert scraped == [{"targets": ["server:8002"]}]
    provisioning = Path("monitoring/grafana/provisioning")
    [source] = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [provider] = yaml.safe_load((provisioning / "dashboards" / "gdino.yml").read_text())["providers"]
    targets = {volume["target"] for volume in SERVICES["grafana"]["volumes"]}
    assert provider["options"]["path"] in targets
    dashboard = json.loads(Path("monitoring/grafana/dashboards/gdino.json").read_text())
    [chosen] = [variable for variable in dashboard["templating"]["list"] if variable["type"] == "datasource"]
    assert chosen["query"] == source["type"]
    panels = [panel for panel in dashboard["panels"] if "targets" in panel]
    assert {panel["datasource"]["uid"] for panel in panels} == {"${" + chosen["name"] + "}"}


def test_tensors_have_room_in_shared_memory_and_answers_have_time() -> None:
    server = SERVICES["server"]
    assert server["shm_size"] == "1gb"
    [hook] = server["pre_stop"]
    [patience] = [int(word.partition("=")[2]) for word in hook["command"] if word.startswith("--timeout-seconds")]
    assert int(server["stop_grace_period"].removesuffix("s")) > patience + 10  # and Triton's own ten seconds
