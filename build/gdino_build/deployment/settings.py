"""The table [deploy] of a deploy.toml, which `make plan` writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gdino_build.profile import load_profile, read_tables
from gdino_build.security.settings import SecuritySettings
from gdino_build.toml_tables import check_table
from gdino_build.weights.sources import SOURCE_NAMES
from gdino_core.errors import ConfigError

_TYPES = {"model": str, "weights": list, "mirror": str, "file": str, "copies": str, "way": str}
_WAYS = ("bare", "docker")
_MODELS = ("demo", "swint", "swinb")


@dataclass(frozen=True, kw_only=True)
class DeploySettings:
    """What to deploy.

    Attributes:
        profile: name of the profile, and of its folder below out/.
        config: the file itself, which is the profile too.
        way: "bare" for the embedded server, "docker" for the containers of docker/compose.yaml.
        model: "demo", "swint" or "swinb": which weights, and what the smoke test expects.
        checkpoint: where the weights lie or come to lie.
        weights: sources to try, in this order; none where the checkpoint is there already.
        mirror: URL of a folder; "" for none.
        file: the weights, brought by other means; "" for none.
        security: where the server listens, and whom it answers.
    """

    profile: str
    config: Path
    way: str
    model: str
    checkpoint: Path
    weights: Sequence[str]
    mirror: str
    file: str
    security: SecuritySettings


def load_deploy_settings(config: Path) -> DeploySettings:
    """Read and check a deploy.toml.

    Raises:
        ConfigError: it is not there, is no profile, or its [deploy] is wrong or asks for what is not built.
    """
    if not config.is_file():
        raise ConfigError(f"there is no {config}", fix="make plan writes one (ANSWERS=cpu needs no answers)")
    profile = load_profile(str(config))
    table = {"way": "bare", **read_tables(str(config)).get("deploy", {})}
    check_table("deploy", table, _TYPES)
    if table["model"] not in _MODELS:
        raise ConfigError(f"[deploy] model is {table['model']!r}", fix=f"choose one of {', '.join(_MODELS)}")
    if unknown := [name for name in table["weights"] if name not in SOURCE_NAMES]:
        raise ConfigError(f"[deploy] weights has {unknown[0]!r}", fix=f"choose from {', '.join(SOURCE_NAMES)}")
    if table["way"] not in _WAYS:
        raise ConfigError(f"[deploy] way is {table['way']!r}", fix=f"choose one of {', '.join(_WAYS)}")
    if table["way"] == "docker" and profile.security != SecuritySettings():
        raise ConfigError(
            '[security] is set, and [deploy] way is "docker", whose server listens on loopback alone',
            fix="put docker/gateway before it, which has TLS and keys; or remove [security]",
        )
    if profile.runtime != "openvino":
        raise ConfigError(
            f"{config} is for {profile.runtime}, and make deploy serves CPU profiles only",
            fix="compile and serve plans in NVIDIA's image, docker/README.md",
        )
    if table["copies"] != "one":
        raise ConfigError(f"[deploy] copies is {table['copies']!r}", fix='write "one": it has all processors already')
    # A source that needs an address and has none is passed over, as the others may do.
    sources = [name for name in table["weights"] if name not in ("mirror", "file") or table[name]]
    return DeploySettings(
        profile=profile.name,
        config=config,
        way=table["way"],
        model=table["model"],
        checkpoint=profile.checkpoint,
        weights=sources,
        mirror=table["mirror"],
        file=table["file"],
        security=profile.security,
    )
