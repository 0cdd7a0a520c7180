"""The TensorRT plans of a model repository: their files, and what config.pbtxt says of them and of GPUs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from gdino_build.engine import sha256_of
from gdino_build.serving import ServingSettings, set_batches
from gdino_build.tensorrt.manifest import PlanManifest, read_manifest
from gdino_build.tensorrt.optimisation_profiles import Buckets
from gdino_build.tensorrt.plan import plan_folder
from gdino_build.tensorrt.triton_needs import TritonNeeds, triton_needs, write_needs
from gdino_build.triton_config import Config, fit_to_engine
from gdino_core import contract
from gdino_core.errors import ConfigError, ExportError
from gdino_core.settings import PreprocessSettings


@dataclass(frozen=True, kw_only=True)
class TensorRtPlans:
    """Plans that Triton's TensorRT backend runs, one for each kind of GPU that they were compiled for.

    Attributes:
        folder: with sm<capability>/text_encoder.plan and detector.plan, each with its manifest.
        graphs: folder with the graphs that the plans must have been compiled from.
        max_batch_size: most pictures in one inference.
    """

    folder: Path
    graphs: Path
    max_batch_size: int
    _read: dict[str, dict[int, PlanManifest]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def largest_batch(self) -> int:
        """Most pictures that are computed at once."""
        return self.max_batch_size

    @property
    def largest_batch_in_every_bucket(self) -> bool:
        """Whether each bucket is warmed up with it: a plan takes the memory of all its profiles when it is loaded."""
        return False

    def configure(self, config: Config, serving: ServingSettings, preprocess: PreprocessSettings) -> None:
        """Write what the server must know of the plans of this model.

        Raises:
            ConfigError: the plans have other tensors than the model, or were compiled for different buckets.
            ExportError: a plan is missing, damaged, or of an older graph.
        """
        set_batches(config, serving, self.max_batch_size, preprocess.max_prompts)
        buckets = Buckets(
            resolutions=preprocess.resolution_buckets,
            tokens=preprocess.text_buckets,
            max_batch_size=self.max_batch_size,
        )
        needs = self._needs(config.name, buckets)
        write_needs(config, needs, {capability: _file_name(capability) for capability in self._capabilities})
        gpus = serving.detector_gpus if config.name == contract.MODEL_DETECTOR else serving.text_encoder_gpus
        (group,) = config.instance_group
        group.count, group.gpus[:] = serving.instances_per_gpu, gpus
        fit_to_engine(config, needs.interface)

    def files(self, name: str) -> Mapping[str, Path]:
        """Plans of a model, and their manifests, by their names in its version folder."""
        plans = {_file_name(capability): self._plan(name, capability) for capability in self._capabilities}
        manifests = {Path(file).with_suffix(".json").name: plan.with_suffix(".json") for file, plan in plans.items()}
        return plans | manifests

    def record(self, name: str) -> dict[str, Any]:
        """What the manifest tells of a model's plans, by compute capability."""
        return {f"sm{capability}": asdict(manifest) for capability, manifest in self._manifests(name).items()}

    @cached_property
    def _capabilities(self) -> list[int]:
        folders = [path for path in self.folder.glob("sm*") if path.name[2:].isdigit()]
        if not folders:
            raise ExportError(f"there are no plans in {self.folder}", fix="make engines, with SM=89 if no GPU is here")
        return sorted(int(path.name[2:]) for path in folders)

    def _plan(self, name: str, capability: int) -> Path:
        return plan_folder(self.folder, capability) / f"{name}.plan"

    def _manifests(self, name: str) -> dict[int, PlanManifest]:
        # Reading one hashes its plan, of hundreds of megabytes: each once.
        if name not in self._read:
            self._read[name] = {
                capability: read_manifest(self._plan(name, capability)) for capability in self._capabilities
            }
        return self._read[name]

    def _needs(self, name: str, buckets: Buckets) -> TritonNeeds:
        manifests = self._manifests(name)
        graph = sha256_of(self.graphs / f"{name}.onnx")
        for capability, manifest in manifests.items():
            plan = f"the plan of {name} for SM={capability}"
            fix = f"rebuild it: {manifest.rebuild_command}; or remove {self._plan(name, capability).parent}"
            if manifest.onnx_sha256 != graph:
                raise ExportError(f"{plan} is not of the graph that is there now", fix=fix)
            if manifest.buckets != buckets:
                raise ConfigError(f"{plan} was compiled for other buckets than the profile has", fix=fix)
        if len(versions := {manifest.version for manifest in manifests.values()}) > 1:
            raise ConfigError(
                f"the plans of {name} are of TensorRT {' and '.join(sorted(versions))}; a server has one",
                fix="rebuild them with one of the two: "
                + "; ".join(manifest.rebuild_command for manifest in manifests.values()),
            )
        return triton_needs(next(iter(manifests.values())))


def _file_name(capability: int) -> str:
    return f"sm{capability}.plan"
