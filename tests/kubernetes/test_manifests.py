"""The manifests are what Kubernetes takes, and their parts fit each other."""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import yaml

from tests.kubernetes.rendered import FOLDER, SERVERS, VARIANTS, Manifest, Rendered, amount, flags, render_text

SCHEMAS = Path(__file__).with_name("schemas")
KUBERNETES_VERSIONS = ["1.29", "1.33", "1.37"]
Render = Callable[[str], Rendered]

every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_server = pytest.mark.parametrize("variant", [*SERVERS, "kserve"])
every_deployment = pytest.mark.parametrize("variant", SERVERS)


@every_variant
@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_kubernetes_takes_every_object(rendered: Render, variant: str, version: str) -> None:
    own = {path.stem for path in SCHEMAS.glob("*.json")}
    for one in rendered(variant).objects:
        if one["kind"] not in own:
            kubernetes_validate.validate(one, version, strict=True)


def test_a_misspelt_field_of_kubernetes_is_found(rendered: Render) -> None:
    deployment = rendered("base").one("Deployment")
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(
            deployment | {"spec": deployment["spec"] | {"replica": 2}}, KUBERNETES_VERSIONS[-1], strict=True
        )


@every_variant
def test_operators_take_every_object_of_theirs(rendered: Render, variant: str) -> None:
    for one in rendered(variant).objects:
        path = SCHEMAS / f"{one['kind']}.json"
        if path.is_file():
            known = json.loads(path.read_text())
            assert one["apiVersion"] == known["apiVersion"]
            jsonschema.validate(one, closed(known["schema"]))


@pytest.mark.parametrize("kind", ["ServiceMonitor", "InferenceService", "ServingRuntime"])
def test_a_misspelt_field_of_an_operator_is_found(rendered: Render, kind: str) -> None:
    one = rendered("kserve" if kind != "ServiceMonitor" else "cpu").one(kind)
    schema = closed(json.loads((SCHEMAS / f"{kind}.json").read_text())["schema"])
    with pytest.raises(jsonschema.ValidationError, match="minReplica"):
        jsonschema.validate(one | {"spec": one["spec"] | {"minReplica": 2}}, schema)


def closed(schema: Any) -> Any:
    """A schema that refuses fields it does not name, as the API server warns of them."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(one) for name, one in schema.items()}
    is_open = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    return inner | (
        {"additionalProperties": False} if isinstance(schema.get("properties"), dict) and not is_open else {}
    )


@every_deployment
def test_selectors_find_the_pods(rendered: Render, variant: str) -> None:
    found = rendered(variant)
    deployment = found.one("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        found.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        found.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(service["spec"]["selector"] for service in found.all_of("Service")),
        *(
            one["labelSelector"]["matchLabels"]
            for one in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        ),
    ]
    assert len(selectors) == 7
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()


@every_deployment
def test_the_autoscaler_scales_the_deployment_and_no_one_else_does(rendered: Render, variant: str) -> None:
    deployment, scaler = rendered(variant).one("Deployment"), rendered(variant).one("HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    assert "replicas" not in deployment["spec"]
    # One pod may be away, and another answers.
    assert scaler["spec"]["minReplicas"] > rendered(variant).one("PodDisruptionBudget")["spec"]["maxUnavailable"]


@every_server
def test_what_asks_a_port_asks_one_that_the_server_opens(rendered: Render, variant: str) -> None:
    server = rendered(variant).server
    opened = {int(flags(server)[f"{name}-port"]) for name in ("grpc", "metrics")}
    declared = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert set(declared.values()) <= opened
    assert declared.get("grpc", declared.get("h2c")) == int(flags(server)["grpc-port"])
    for probe in ("startupProbe", "readinessProbe"):
        assert server[probe]["grpc"]["port"] == int(flags(server)["grpc-port"])
    metrics = f"http://127.0.0.1:{flags(server)['metrics-port']}/metrics"
    assert metrics in server["livenessProbe"]["exec"]["command"]
    assert f"--metrics-url={metrics}" in server["lifecycle"]["preStop"]["exec"]["command"]


@every_deployment
def test_services_and_policy_let_through_what_is_asked_for_and_no_more(rendered: Render, variant: str) -> None:
    found = rendered(variant)
    declared = {port["name"]: port["containerPort"] for port in found.server["ports"]}
    for service in found.all_of("Service"):
        for port in service["spec"]["ports"]:
            assert declared[port["targetPort"]] == port["port"]
    rules = found.one("NetworkPolicy")["spec"]["ingress"]
    allowed = {port["port"]: rule["from"] for rule in rules for port in rule["ports"]}
    assert allowed.keys() == declared.keys()
    for sources in allowed.values():
        assert sources and all(source["namespaceSelector"]["matchLabels"] for source in sources)


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_prometheus_finds_each_pod_once(rendered: Render, variant: str) -> None:
    found = rendered(variant)
    monitor = found.one("ServiceMonitor")
    selected = [
        service
        for service in found.all_of("Service")
        if monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    ]
    assert len(selected) == 1
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] == "metrics"
    rules = Path("monitoring/prometheus/rules/recording.yml").read_text()
    assert {"targetLabel": "job", "replacement": "triton"} in endpoint["relabelings"]
    assert 'job="triton"' in rules
    assert "metrics" in [port["name"] for port in selected[0]["spec"]["ports"]]
    assert monitor["metadata"]["namespace"] == selected[0]["metadata"]["namespace"]


@every_server
def test_a_pod_has_the_time_to_answer_what_it_accepted(rendered: Render, variant: str) -> None:
    found = rendered(variant)
    if variant == "kserve":
        grace = found.one("InferenceService")["spec"]["predictor"]["terminationGracePeriodSeconds"]
    else:
        grace = found.one("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    command = found.server["lifecycle"]["preStop"]["exec"]["command"]
    given = dict(one.removeprefix("--").split("=") for one in command if one.startswith("--"))
    settle, timeout = float(given["settle-seconds"]), float(given["timeout-seconds"])
    assert settle >= 5  # endpoints and load balancers learn of it meanwhile
    assert grace > settle + timeout + float(flags(found.server)["exit-timeout-secs"])


@every_deployment
def test_a_connection_that_ends_has_the_time_for_the_longest_request(rendered: Render, variant: str) -> None:
    given = flags(rendered(variant).server)
    command = rendered(variant).server["lifecycle"]["preStop"]["exec"]["command"]
    [drain_s] = [float(one.partition("=")[2]) for one in command if one.startswith("--timeout-seconds=")]
    assert int(given["grpc-max-connection-age-grace"]) >= 1000 * drain_s


@every_variant
def test_no_container_may_do_more_than_it_must(rendered: Render, variant: str) -> None:
    for pod in rendered(variant).pods:
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            context = pod.get("securityContext", {}) | container["securityContext"]
            assert context["runAsNonRoot"] is True
            if "rclone" not in container["image"]:
                assert context["runAsUser"] == 1000
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}


@every_variant
def test_no_container_asks_for_more_than_its_limit(rendered: Render, variant: str) -> None:
    for container in rendered(variant).containers:
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert {"cpu", "memory"} <= requests.keys() <= limits.keys()
        for name, asked in requests.items():
            assert amount(str(asked)) <= amount(str(limits[name]))


@every_server
def test_shared_memory_is_memory_and_leaves_room_for_the_rest(rendered: Render, variant: str) -> None:
    found = rendered(variant)
    [mount] = [one for one in found.server["volumeMounts"] if one["mountPath"] == "/dev/shm"]
    [volume] = [one for pod in found.pods for one in pod["volumes"] if one["name"] == mount["name"]]
    assert volume["emptyDir"]["medium"] == "Memory"
    size, limit = volume["emptyDir"]["sizeLimit"], found.server["resources"]["limits"]["memory"]
    assert 2**30 <= amount(size) <= amount(limit) / 4


@every_server
def test_what_a_killed_container_leaves_behind_is_removed_before_the_next_server_starts(
    rendered: Render, variant: str
) -> None:
    server = rendered(variant).server
    shell, option, program, name, *_ = server["args"]
    assert (shell, option, name) == ("sh", "-c", "tritonserver")
    [drain_file] = [one["value"] for one in server["env"] if one["name"] == "GDINO_DRAIN_FILE"]
    prefix = flags(server)["backend-config"].partition("shm-region-prefix-name=")[2]
    assert program.startswith(f"rm -f /dev/shm/{prefix}* && ")
    assert drain_file.startswith(f"/dev/shm/{prefix}")


@every_variant
def test_images_are_pinned_and_the_servers_is_this_version(rendered: Render, variant: str) -> None:
    version = tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"]
    images = [container["image"] for container in rendered(variant).containers]
    for image in images:
        name, _, tag = image.rpartition(":")
        assert name and tag and tag != "latest"
        assert name != "gdino-server" or tag == version
    assert f"gdino-server:{version}" in images


def test_the_version_of_the_image_stands_in_one_place() -> None:
    version = tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"]
    having = [path for path in FOLDER.rglob("*.yaml") if version in path.read_text()]
    assert having == [FOLDER / "image" / "kustomization.yaml"]


def test_the_kustomization_in_the_readme_sets_registry_and_storage(tmp_path: Path) -> None:
    mine, storage = re.findall(r"```yaml\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    assert "# components: [" in mine
    found = render_text(
        (mine.replace("# components", "components") + storage).replace("../kubernetes", "kubernetes"), tmp_path
    )
    version = tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"]
    assert found.server["image"] == f"registry.example/gdino-server:{version}"
    settings = found.one("ConfigMap")["data"]
    assert settings.keys() == {"RCLONE_CONFIG_STORE_ENDPOINT", "FOLDER"}


@every_deployment
def test_the_checked_models_are_those_served(rendered: Render, variant: str) -> None:
    found = rendered(variant)
    [pod] = found.pods
    check = pod["initContainers"][-1]
    assert check["args"][:3] == ["python3", "-m", "gdino_core.manifest"]
    served = [one for one in found.server["volumeMounts"] if one["name"] == "models"]
    assert [one for one in check["volumeMounts"] if one["name"] == "models"] == served
    assert check["args"][3] == served[0]["mountPath"] == flags(found.server)["model-repository"]
    assert served[0]["readOnly"] is True


@pytest.mark.parametrize("hardware", ["cpu", "gpu"])
def test_object_storage_takes_the_place_of_the_volume_and_only_then_may_a_pod_call_out(
    rendered: Render, hardware: str
) -> None:
    plain, stored = rendered(hardware), rendered(f"{hardware} from object storage")
    assert plain.one("NetworkPolicy")["spec"]["egress"] == []
    ports = {
        (port["protocol"], port["port"])
        for rule in stored.one("NetworkPolicy")["spec"]["egress"]
        for port in rule["ports"]
    }
    assert ports == {("UDP", 53), ("TCP", 53), ("TCP", 443)}
    settings = stored.one("ConfigMap")
    assert not stored.all_of("PersistentVolumeClaim")
    [pod] = stored.pods
    fetch = pod["initContainers"][0]
    assert fetch["envFrom"][0]["configMapRef"]["name"] == settings["metadata"]["name"]
    assert "store:$(FOLDER)" in fetch["args"] and "FOLDER" in settings["data"]
    [volume] = [one for one in pod["volumes"] if one["name"] == "models"]
    assert volume.keys() == {"name", "emptyDir"}
    assert all("subPath" not in mount for one in stored.containers for mount in one["volumeMounts"])


def test_kserve_runs_the_same_server(rendered: Render) -> None:
    ours, theirs = rendered("base").server, rendered("kserve").server
    own = {"model-repository", "grpc-max-connection-age", "grpc-max-connection-age-grace"}
    assert {k: v for k, v in flags(ours).items() if k not in own} == {
        k: v for k, v in flags(theirs).items() if k not in own
    }
    for part in ("env", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle"):
        assert ours[part] == theirs[part], part
    runtime, service = rendered("kserve").one("ServingRuntime"), rendered("kserve").one("InferenceService")
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in [one["name"] for one in runtime["spec"]["supportedModelFormats"]]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    claim = model["storageUri"].removeprefix("pvc://").partition("/")[0]
    assert claim == rendered("base").one("PersistentVolumeClaim")["metadata"]["name"]


@every_deployment
def test_the_autoscalers_metric_is_the_one_that_the_adapter_publishes(rendered: Render, variant: str) -> None:
    [asked] = [one["pods"] for one in rendered(variant).one("HorizontalPodAutoscaler")["spec"]["metrics"]]
    [rule] = adapter_rules()
    assert asked["metric"]["name"] == rule["name"]["as"]
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}  # labels that Prometheus's operator gives


def test_kserve_scales_on_the_same_figure(rendered: Render) -> None:
    [metric] = rendered("kserve").one("InferenceService")["spec"]["predictor"]["autoScaling"]["metrics"]
    [rule] = adapter_rules()
    ours = filled(rule, 'namespace="gdino"', "pod").replace(" by (pod)", "")
    assert shape(metric["external"]["metric"]["query"]) == shape(ours)


def adapter_rules() -> list[Manifest]:
    content = yaml.safe_load((FOLDER / "prometheus-adapter" / "values.yaml").read_text())
    rules: list[Manifest] = content["rules"]["custom"]
    return rules


def filled(rule: Manifest, matchers: str, group_by: str) -> str:
    """The query as the adapter asks Prometheus."""
    series = promql_parser.parse(rule["seriesQuery"]).name
    query: str = rule["metricsQuery"]
    for name, value in {"Series": series, "LabelMatchers": matchers, "GroupBy": group_by}.items():
        assert f"<<.{name}>>" in query
        query = query.replace(f"<<.{name}>>", value)
    return query


def shape(query: str) -> str:
    return promql_parser.parse(query).prettify()
