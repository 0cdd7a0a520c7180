"""Says what a checkpoint file is, what this project makes of it, and what keeps it from being built."""

from collections import Counter, defaultdict
from collections.abc import Mapping

import torch

from gdino_build.checkpoint.architecture import Shape, guess_architecture
from gdino_build.checkpoint.families import other_family
from gdino_build.checkpoint.folding import fold
from gdino_build.checkpoint.loading import check_fit, check_numbers, module_shapes
from gdino_build.checkpoint.names import OfficialState
from gdino_build.checkpoint.reading import CheckpointFile
from gdino_build.model import ARCHITECTURES, ModelConfig
from gdino_build.model.config import SWIN_BACKBONES

_LABEL_WIDTH = 9


def describe_file(file: CheckpointFile) -> str:
    """Rows on format, size, what is beside the weights, tensors and dtypes."""
    size = sum(path.stat().st_size for path in file.files)
    beside = [f"{name} {value}" if isinstance(value, (int, float)) else name for name, value in file.beside.items()]
    rows = (
        _row("file", *map(str, file.files)),
        _row("format", f"{file.format}, {size:,} bytes"),
        _row("beside", ", ".join(beside) or "nothing"),
        _row("tensors", f"{len(file.state)} of {_numbers(file.state):,} numbers"),
        _row("dtypes", ", ".join(_dtypes(file))),
    )
    return "\n".join(rows)


def describe_state(state: OfficialState) -> str:
    """Rows on names, what is dropped and why, and the sizes of the model."""
    shapes = _shapes(state)
    guess = guess_architecture(shapes)
    rows = (
        _row("names", _names(state)),
        _row("dropped", *_dropped(state)),
        _row("model", f"{len(state.tensors)} tensors of {_numbers(state.tensors):,} parameters"),
        _row("sizes", *(_sizes(guess.config) if guess else ["unknown: tensors that tell them are not there"])),
        _row("assumed", guess.assumed if guess else "nothing"),
    )
    return "\n".join(rows)


def check_buildable(state: OfficialState, config: ModelConfig | None) -> str:
    """Check that this project can build from a checkpoint.

    Args:
        state: of the checkpoint.
        config: that it must fit; None takes the one that its shapes tell.

    Returns:
        A row on what it fits.

    Raises:
        CheckpointError: it does not fit; see `load_model`.
    """
    shapes = _shapes(state)
    wanted = config or _nearest(shapes)
    check_fit(wanted, shapes)
    check_numbers(state.tensors)
    if wanted in ARCHITECTURES.values():
        return _row("fits", f'strictly: architecture = "{wanted.name}" in [model] of a profile')
    if config is not None:
        return _row("fits", f"strictly: {config.name}")
    return _row("fits", "strictly, with these sizes; [model] of a profile wants config = its configuration file")


def _numbers(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _dtypes(file: CheckpointFile) -> list[str]:
    counts = Counter(tensor.dtype for tensor in file.state.values())
    return [
        f"{count} {str(dtype).removeprefix('torch.')}"
        + (" (which become float32)" if dtype.is_floating_point and dtype != torch.float32 else "")
        for dtype, count in counts.most_common()
    ]


def _shapes(state: OfficialState) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in state.tensors.items()}


def _nearest(shapes: dict[str, Shape]) -> ModelConfig:
    """The architecture that shapes tell or, where they do not, the known one that shares most tensors."""
    if guess := guess_architecture(shapes):
        return guess.config
    return max(ARCHITECTURES.values(), key=lambda known: len(module_shapes(known).items() & shapes.items()))


def _names(state: OfficialState) -> str:
    names = "Hugging Face's" if state.hugging_face else "official"
    if family := other_family(state.tensors):
        names = f"those of {family[0]}"
    elif state.tensors.keys().isdisjoint(module_shapes(_nearest(_shapes(state)))):
        names = "none of GroundingDINO's"
    prefixes = " and ".join(sorted(state.prefixes))
    return f"{names}, with the prefix {prefixes}, which is dropped" if prefixes else names


def _dropped(state: OfficialState) -> list[str]:
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for name, reason in state.dropped.items():
        by_reason[reason].append(name)
    universe = [*state.dropped, *state.tensors]
    lines = [f"{folded}: {reason}" for reason, names in by_reason.items() for folded in fold(names, universe)]
    return lines or ["nothing"]


def _sizes(config: ModelConfig) -> list[str]:
    swin, bert = config.swin, config.bert
    backbone = next((name for name, known in SWIN_BACKBONES.items() if known == swin), "Swin")
    return [
        f"{backbone}: width {swin.embed_dim}, depths {' '.join(map(str, swin.depths))}, "
        f"heads {' '.join(map(str, swin.num_heads))}, window {swin.window_size}",
        f"BERT: width {bert.hidden_dim}, {bert.num_layers} layers, FFN {bert.ffn_dim}, "
        f"{bert.vocab_size} words, {bert.max_positions} positions",
        f"detector: width {config.hidden_dim}, {config.num_encoder_layers} + {config.num_decoder_layers} layers, "
        f"FFN {config.ffn_dim}, {config.num_queries} queries, {config.num_levels} levels",
    ]


def _row(label: str, *lines: str) -> str:
    """A label, and lines under each other beside it."""
    labels = (label, *[""] * len(lines))
    return "\n".join(f"{label:<{_LABEL_WIDTH}}{line}" for label, line in zip(labels, lines, strict=False))
