"""Loads a checkpoint strictly, or says what does not fit and why."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch

from gdino_build.checkpoint.architecture import Shape, differences, guess_architecture
from gdino_build.checkpoint.families import other_family
from gdino_build.checkpoint.folding import Folded, fold
from gdino_build.model import ARCHITECTURES, GroundingDino, ModelConfig
from gdino_core.errors import CheckpointError


def load_model(config: ModelConfig, state: Mapping[str, torch.Tensor]) -> GroundingDino:
    """Build the model and load every tensor, strictly.

    Args:
        config: sizes of the architecture.
        state: official names to tensors; see `canonical_state_dict`.

    Returns:
        The model in evaluation mode, without gradients.

    Raises:
        CheckpointError: names missing, unexpected or of another shape, all of them told with the likely cause;
            numbers that are not finite, or no floats.
    """
    check_fit(config, {name: tuple(tensor.shape) for name, tensor in state.items()})
    check_numbers(state)
    model = GroundingDino(config)
    model.load_state_dict(state, strict=True)
    return model.eval().requires_grad_(False)


def check_fit(config: ModelConfig, found: Mapping[str, Shape]) -> None:
    """Compare the names and shapes of a checkpoint with those of the module.

    Raises:
        CheckpointError: see `load_model`.
    """
    misfit = _misfit(config, found)
    if misfit:
        cause, fix = _likely_cause(config, found, misfit)
        shown = "\n  ".join(misfit.lines(found, module_shapes(config)))
        raise CheckpointError(f"checkpoint does not fit architecture {config.name}: {cause}\n  {shown}", fix=fix)


def check_numbers(state: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights that are quantised, and numbers that are none: a training run that broke.

    Raises:
        CheckpointError: with the names of the tensors.
    """
    quantised = [name for name, tensor in state.items() if not tensor.is_floating_point()]
    if quantised:
        raise CheckpointError(
            f"the checkpoint holds no floating point numbers in:{_folded_lines(quantised, state)}",
            fix="take the checkpoint that was not quantised; a profile quantises by itself",
        )
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"the checkpoint holds NaN or infinity, as training leaves them that went wrong, in:"
            f"{_folded_lines(broken, state)}",
            fix="take a checkpoint of an earlier epoch",
        )


def module_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Names and shapes of the module's tensors."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in GroundingDino(config).state_dict().items()}


def _folded_lines(names: Collection[str], state: Mapping[str, torch.Tensor]) -> str:
    return "".join(f"\n  {folded}" for folded in fold(names, state))


@dataclass(frozen=True, kw_only=True)
class _Misfit:
    """Names of tensors by what is wrong with them."""

    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)

    def lines(self, found: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> list[str]:
        """Every name, whole families of names in one line."""
        lines = []
        for folded in fold(self.missing, wanted):
            lines.append(f"missing {folded}{_shape_of(folded, wanted)}")
        for folded in fold(self.unexpected, found):
            lines.append(f"unexpected {folded}{_shape_of(folded, found)}")
        for folded in fold(self.misshapen, [name for name in wanted if name in found]):
            first = folded.names[0]
            alike = len({(found[name], wanted[name]) for name in folded.names}) == 1
            example = "" if alike else f": {first}"
            lines.append(f"misshapen {folded}{example} is {found[first]}, expected {wanted[first]}")
        return lines


def _misfit(config: ModelConfig, found: Mapping[str, Shape]) -> _Misfit:
    wanted = module_shapes(config)
    return _Misfit(
        missing=[name for name in wanted if name not in found],
        unexpected=[name for name in found if name not in wanted],
        misshapen=[name for name in wanted if name in found and found[name] != wanted[name]],
    )


def _shape_of(folded: Folded, shapes: Mapping[str, Shape]) -> str:
    """The shape, where all tensors of a line have one."""
    own = {shapes[name] for name in folded.names}
    return f" {own.pop()}" if len(own) == 1 else ""


def _likely_cause(config: ModelConfig, found: Mapping[str, Shape], misfit: _Misfit) -> tuple[str, str]:
    """Why a checkpoint does not fit, and how to mend it."""
    if family := other_family(found):
        return f"it is one of {family[0]}", family[1]
    if found.keys().isdisjoint(module_shapes(config)):
        return "none of its tensors has a name of GroundingDINO's", "take a checkpoint of GroundingDINO"
    guess = guess_architecture(found)
    if guess is not None and len(_misfit(guess.config, found)) < len(misfit):
        if guess.config in ARCHITECTURES.values():
            name = guess.config.name
            return f"its shapes are those of {name}", f'write architecture = "{name}" in [model] of the profile'
        sizes = "; ".join(differences(guess.config, config))
        return (
            f"its shapes are those of another configuration: {sizes}",
            'write config = "its configuration file.py" in [model] of the profile, in place of architecture',
        )
    if not misfit.unexpected and not misfit.misshapen:
        return (
            "a part of the model is not there, as in a file of several or one that was cut short while it was saved",
            "name the folder if the checkpoint is in several files, or get it again",
        )
    if not misfit.missing and not misfit.misshapen:
        return (
            "it has more than GroundingDINO, such as a head for another task",
            "remove what is unexpected from the file, if the model answers as well without it",
        )
    return (
        "it is of another configuration or was changed",
        "check [model] in the profile, and that the file is the one you mean",
    )
