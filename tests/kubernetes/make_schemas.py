"""Make schemas/*.json: what the CustomResourceDefinitions of other projects allow, without prose and what is not used.

    python tests/kubernetes/make_schemas.py ../kserve ../prometheus-operator

takes the folders of both repositories; schemas/README.md says at which versions they were taken.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

SCHEMAS = Path(__file__).with_name("schemas")
KSERVE, OPERATOR = "config/crd/full/serving.kserve.io_", "example/prometheus-operator-crd/monitoring.coreos.com_"
# By far the most of their text: pods of other model servers, and what of a pod is not used here. Who uses it and finds
# it refused adds it here.
LEFT_OUT = {
    "ServingRuntime": ("affinity", "workerSpec", "resourceClaims"),
    "InferenceService": (
        *(
            "affinity",
            "canary",
            "containers",
            "explainer",
            "initContainers",
            "resourceClaims",
            "topologySpreadConstraints",
        ),
        *("huggingface", "lightgbm", "logger", "onnx", "paddle", "pmml", "pytorch", "sklearn", "tensorflow"),
        *("transformer", "triton", "volumes", "workerSpec", "xgboost"),
    ),
    "ServiceMonitor": (),
}


def main(kserve: Path, operator: Path) -> None:
    """Write them."""
    for path in (
        kserve / f"{KSERVE}servingruntimes.yaml",
        kserve / f"{KSERVE}inferenceservices.yaml",
        operator / f"{OPERATOR}servicemonitors.yaml",
    ):
        definition = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
        kind, [version] = definition["names"]["kind"], definition["versions"]
        schema = without(version["schema"]["openAPIV3Schema"], LEFT_OUT[kind])
        content = {"apiVersion": f"{definition['group']}/{version['name']}", "kind": kind, "schema": schema}
        (SCHEMAS / f"{kind}.json").write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def without(schema: Any, left_out: tuple[str, ...]) -> Any:
    """A schema without its descriptions, its status and some properties."""
    if isinstance(schema, list):
        return [without(one, left_out) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        name: without(one, left_out) for name, one in schema.items() if name != "description" or isinstance(one, dict)
    }
    if isinstance(kept.get("properties"), dict):
        kept["properties"] = {
            name: one for name, one in kept["properties"].items() if name not in (*left_out, "status")
        }
    return kept


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
