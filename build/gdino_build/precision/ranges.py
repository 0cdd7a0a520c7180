"""How large numbers become: proof that FP16 does not overflow at the largest sizes, on adversarial pictures."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from gdino_build.clean import infer_shapes
from gdino_build.parity import Array
from gdino_build.pictures import draw_picture
from gdino_build.precision import GRAPHS
from gdino_build.precision.calibration_data import with_text_features
from gdino_build.precision.extremes import NamedCase, largest_magnitudes
from gdino_build.precision.lowering import LOW_TYPES, MOVERS, lower_precision
from gdino_build.precision.policy import is_lowered
from gdino_build.whole_file import write_json
from gdino_core import contract
from gdino_core.prompt import encode_prompt

_CAPTIONS = ("red circle . blue star . green square .", "cat . remote control . a person riding a bicycle .")
_MOST_ROWS = 20  # of the table; the JSON has all
LARGEST_FP16 = float(np.finfo(np.float16).max)  # 65504


@dataclass(frozen=True, kw_only=True)
class Range:
    """The largest magnitude of one tensor, and the picture that gave it."""

    graph: str
    tensor: str
    largest: float
    picture: str


def largest_sizes(buckets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The buckets with most pixels, and those with the longest side."""
    most_pixels = max(height * width for height, width in buckets)
    longest = max(max(bucket) for bucket in buckets)
    return [bucket for bucket in buckets if bucket[0] * bucket[1] == most_pixels or max(bucket) == longest]


def scan_ranges(
    cleaned: Path,
    sizes: Sequence[tuple[int, int]],
    text_buckets: tuple[int, ...],
    progress: Callable[[Sequence[NamedCase]], Iterable[NamedCase]] = iter,
) -> list[Range]:
    """Measure every tensor of both cleaned graphs that FP16 holds, on adversarial pictures.

    Args:
        cleaned: folder of the graphs.
        sizes: of the pictures.
        text_buckets: numbers of tokens that prompts are padded to.
        progress: wraps the cases of each graph, such as tqdm.

    Returns:
        The largest first.
    """
    cases = list(adversarial_cases(sizes, _CAPTIONS, text_buckets))
    text_encoder, detector = (onnx.load(cleaned / f"{name}.onnx") for name in GRAPHS)
    with_features = zip(
        [name for name, _ in cases], with_text_features(text_encoder, [one for _, one in cases]), strict=True
    )
    found = measure_ranges(GRAPHS[0], text_encoder, fp16_tensors(text_encoder), progress(cases))
    found += measure_ranges(GRAPHS[1], detector, fp16_tensors(detector), progress(list(with_features)))
    return sorted(found, key=lambda one: one.largest, reverse=True)


def format_ranges(found: Sequence[Range]) -> str:
    """The largest as a table."""
    lines = [f"{'tensor':<72}{'largest':>10}  picture"]
    lines += [f"{f'{one.graph}: {one.tensor}':<72}{one.largest:>10.1f}  {one.picture}" for one in found[:_MOST_ROWS]]
    return "\n".join([*lines, f"{len(found)} tensors; FP16 ends at {LARGEST_FP16:.0f}"])


def write_ranges(found: Sequence[Range], path: Path) -> None:
    """Write all as JSON; the file appears only when it is whole."""
    write_json(path, [asdict(one) for one in found])


def adversarial_pictures(height: int, width: int) -> Iterator[tuple[str, Array]]:
    """Pictures that drive numbers to their limits, and one drawn like a photograph: uint8 [3, height, width]."""
    rows, columns = np.arange(height)[:, None], np.arange(width)
    noise = np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8)
    yield "black", np.zeros((3, height, width), np.uint8)
    yield "white", np.full((3, height, width), 255, np.uint8)
    for cell in (1, 32):
        board = ((rows // cell + columns // cell) % 2 * 255).astype(np.uint8)
        yield f"checkerboard of {cell}", np.broadcast_to(board, (3, height, width)).copy()
    yield "noise", noise
    yield "black and white noise", np.where(noise > 127, 255, 0).astype(np.uint8)
    yield "drawn", np.ascontiguousarray(draw_picture(1, height, width).transpose(2, 0, 1))


def adversarial_cases(
    sizes: Sequence[tuple[int, int]], captions: Sequence[str], text_buckets: tuple[int, ...]
) -> Iterator[NamedCase]:
    """Inputs of both graphs: every picture at every size, with the captions in turn.

    Args:
        sizes: heights and widths of whole pictures, multiples of 32.
        captions: prompts.
        text_buckets: numbers of tokens that prompts are padded to.
    """
    for height, width in sizes:
        for index, (name, pixels) in enumerate(adversarial_pictures(height, width)):
            prompt = encode_prompt((captions[index % len(captions)],), text_buckets)
            yield (
                f"{name}, {height}x{width}",
                {
                    contract.PIXELS: pixels[None],
                    contract.VALID_HW: np.array([[height, width]], np.int32),
                    contract.INPUT_IDS: prompt.input_ids[None],
                    contract.POSITION_IDS: prompt.position_ids[None],
                    contract.PHRASE_IDS: prompt.phrase_ids[None],
                },
            )


def fp16_tensors(model: onnx.ModelProto) -> list[str]:
    """Names of the tensors of a cleaned graph that its FP16 variant computes in FP16, or rounds to FP16 on the way.

    They come in the order of the graph.
    """
    graph = gs.import_onnx(model)
    graph.toposort()
    order = [*graph.inputs, *(tensor for node in graph.nodes for tensor in node.outputs)]
    places = {tensor.name: place for place, tensor in enumerate(order)}
    names = {tensor.name for node in graph.nodes if node.op not in MOVERS for tensor in node.outputs}
    lower_precision(graph, "fp16", lambda node: is_lowered(node, "fp16"))
    infer_shapes(graph)
    low = LOW_TYPES["fp16"]
    computed, rounded = set(), set()
    for node in graph.nodes:
        for tensor in node.outputs:
            if tensor.dtype != low:
                continue
            if node.op == "Cast":
                rounded.add(node.inputs[0].name)
            else:  # an output of the graph is cast back, from a tensor of its name and "_low"
                computed.add(tensor.name.removesuffix("_low"))
    return sorted(computed & names | rounded, key=places.__getitem__)


def measure_ranges(graph: str, model: onnx.ModelProto, names: Sequence[str], cases: Iterable[NamedCase]) -> list[Range]:
    """Run a graph of FP32 and note the largest magnitude of each tensor.

    Args:
        graph: its name.
        model: the cleaned graph.
        names: of its tensors, in the order of the graph.
        cases: names of pictures and inputs of the graph.

    Returns:
        In the order of the names; one that is infinite or no number counts as infinite.
    """
    largest = {name: Range(graph=graph, tensor=name, largest=-1.0, picture="") for name in names}
    for picture, magnitudes in largest_magnitudes(model, names, cases):
        for name, magnitude in magnitudes.items():
            if magnitude > largest[name].largest:
                largest[name] = Range(graph=graph, tensor=name, largest=magnitude, picture=picture)
    return list(largest.values())
