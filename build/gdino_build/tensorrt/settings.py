"""What a plan is compiled for."""

from dataclasses import dataclass
from pathlib import Path

from gdino_build.tensorrt.optimisation_profiles import Buckets
from gdino_core.errors import ConfigError

_LEAST_WORKSPACE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """What a plan is compiled for.

    Attributes:
        profile_name: build profile, for the command that rebuilds the plan.
        capability: compute capability, such as 89; see choose_capability.
        buckets: sizes that requests come in.
        workspace_bytes: most GPU memory for intermediate results; Swin-T in FP32 needs 1.33 GB for a batch of four
            pictures of 800x1216.
        timing_caches: folder where measurements of kernels are kept for the next build.
    """

    profile_name: str
    capability: int
    buckets: Buckets
    workspace_bytes: int
    timing_caches: Path

    def __post_init__(self) -> None:
        if self.workspace_bytes < _LEAST_WORKSPACE_BYTES:
            raise ConfigError(
                f"the workspace is {self.workspace_bytes} bytes", fix=f"give it at least {_LEAST_WORKSPACE_BYTES}"
            )

    @property
    def rebuild_command(self) -> str:
        """The command that makes the plan again."""
        return f"make engines PROFILE={self.profile_name} SM={self.capability}"
