"""Random weights stand in for official ones: always the same, and lively enough to show a mistake."""

import pytest
import torch

from gdino_build.checkpoint import loading
from gdino_build.model import DEMO, GroundingDino
from gdino_build.random_weights import RANDOM_WEIGHTS_SEED, random_state_dict


def test_every_call_gives_the_same_weights(demo_state: dict[str, torch.Tensor]) -> None:
    again = random_state_dict(DEMO)
    assert again.keys() == demo_state.keys()
    assert all(torch.equal(again[name], value) for name, value in demo_state.items())


def test_another_seed_changes_every_tensor(demo_state: dict[str, torch.Tensor]) -> None:
    other = random_state_dict(DEMO, RANDOM_WEIGHTS_SEED + 1)
    assert not [name for name, value in demo_state.items() if torch.equal(other[name], value)]


def test_a_parameters_value_does_not_depend_on_those_before_it(
    demo_state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reversed(GroundingDino):
        def state_dict(self) -> dict[str, torch.Tensor]:
            return dict(reversed(super().state_dict().items()))

    monkeypatch.setattr(loading, "GroundingDino", Reversed)
    backwards = random_state_dict(DEMO)
    assert list(backwards) == list(reversed(demo_state))
    assert all(torch.equal(backwards[name], value) for name, value in demo_state.items())


def test_parameters_of_equal_shape_differ(demo_state: dict[str, torch.Tensor]) -> None:
    layers = [demo_state[f"transformer.decoder.layers.{layer}.norm1.weight"] for layer in range(3)]
    assert not torch.equal(layers[0], layers[1])
    assert not torch.equal(layers[1], layers[2])


def test_no_part_is_silent(demo_state: dict[str, torch.Tensor]) -> None:
    # What plain initialisation leaves at 0 or 1e-4 hides mistakes in what follows it.
    spread = {name: float(tensor.std()) for name, tensor in demo_state.items()}
    assert min(spread.values()) > 0.005, min(spread, key=spread.__getitem__)
    assert all(float(demo_state[name].abs().mean()) > 0.1 for name in demo_state if ".gamma_" in name)


def test_the_weights_are_single_precision_and_finite(demo_state: dict[str, torch.Tensor]) -> None:
    assert {tensor.dtype for tensor in demo_state.values()} == {torch.float32}
    assert all(tensor.isfinite().all() for tensor in demo_state.values())
