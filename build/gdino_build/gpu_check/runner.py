"""What everything that runs the model offers; see `worker`, which calls it."""

from typing import Any, Protocol

from gdino_build.parity import Arrays

DEVICES = ("cuda", "cpu")
CAPTION = "CAPTION"  # text [B]: what the original tokenises itself, beside the ids that all others take


class Runner(Protocol):
    """Text encoder and detector of one precision, loaded.

    Attributes:
        version: of what runs it.
        can_force: whether it takes PROPOSALS among the inputs, and then answers PROPOSAL_SCORES too (see `parity`).
    """

    version: str
    can_force: bool

    def place(self, inputs: Arrays) -> Any:
        """Copy inputs, by their names in the contract, to the device."""

    def run(self, placed: Any) -> Any:
        """One pass over what `place` gave; returns when the device has finished, and outputs stay on it."""

    def fetch(self, outputs: Any) -> Arrays:
        """Copy what `run` gave from the device: LOGITS float32 [B,Q,T] and BOXES_CXCYWH float32 [B,Q,4]."""
