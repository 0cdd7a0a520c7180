"""The OpenVINO engines of a model repository: their files, and what config.pbtxt says of them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gdino_build.engine import engine_interface, read_record
from gdino_build.serving import ServingSettings, set_batches
from gdino_build.triton_config import Config, fit_to_engine, set_parameters
from gdino_core.openvino_engine import ENGINE_FILE_NAME, OPERATOR_SUFFIX, OpenVinoSettings
from gdino_core.settings import PreprocessSettings


@dataclass(frozen=True, kw_only=True)
class OpenVinoEngines:
    """Engines that model.py runs.

    Attributes:
        folder: with text_encoder.xml and detector.xml, each with its .bin and .json.
        settings: how the server compiles them.
    """

    folder: Path
    settings: OpenVinoSettings

    @property
    def largest_batch(self) -> int:
        """Most pictures that are computed at once."""
        return self.settings.streams_here() * self.settings.max_batch_size

    @property
    def largest_batch_in_every_bucket(self) -> bool:
        """Whether each bucket is warmed up with it: streams prepare operators of their own, for each size."""
        return self.settings.streams_here() > 1

    def configure(self, config: Config, serving: ServingSettings, preprocess: PreprocessSettings) -> None:
        """Write what the server must know of the engine of this model.

        Raises:
            ConfigError: the engine has other tensors than the model.
            ExportError: the engine is missing or damaged.
        """
        set_parameters(config, self.settings.to_parameters())
        set_batches(config, serving, self.settings.max_batch_size, preprocess.max_prompts)
        fit_to_engine(config, engine_interface(self._engine(config.name)))

    def files(self, name: str) -> Mapping[str, Path]:
        """Files of a model's engine by their names in its version folder."""
        engine, served = self._engine(name), Path(ENGINE_FILE_NAME)
        suffixes = [".xml", ".bin"] + ([OPERATOR_SUFFIX] if engine.with_suffix(OPERATOR_SUFFIX).is_file() else [])
        return {served.with_suffix(suffix).name: engine.with_suffix(suffix) for suffix in suffixes}

    def record(self, name: str) -> dict[str, Any]:
        """What the manifest tells of a model's engine."""
        return asdict(read_record(self._engine(name)))

    def _engine(self, name: str) -> Path:
        return self.folder / f"{name}.xml"
