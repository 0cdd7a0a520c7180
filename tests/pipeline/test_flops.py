"""The work that `make flops` tells is the work that is done: counted by hand, and by torch's own counter."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx_graphsurgeon as gs
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gdino_build.flops import Work, count_file, count_graph, total
from gdino_build.flops_report import format_work, read_original_work, write_work
from gdino_build.model import GroundingDino
from gdino_build.model.fusion import FusionLayer
from gdino_build.specialise import settle_sizes
from gdino_build.work_stages import STAGES, stage_of
from gdino_core.errors import ConfigError
from tests.pipeline.graphs import Builder

SIZES = {"batch": 2, "tokens": 11}
HW = {"height": 96, "width": 160}


def work_of(build: Builder, output: gs.Variable) -> Work:
    graph = gs.import_onnx(build.done(output))
    settle_sizes(graph)
    return total(count_graph(graph).values())


def test_a_matrix_product_is_counted_as_by_hand() -> None:
    build = Builder([2, 5, 3])
    work = work_of(build, build.add("Relu", build.add("MatMul", build.x, np.ones((3, 4), np.float32))))
    assert work == Work(products=2 * 5 * 3 * 4, weight_bytes=48, fused_bytes=160, unfused_bytes=320)


def test_a_convolution_is_counted_as_by_hand() -> None:
    build = Builder([1, 4, 8, 8])
    output = build.add("Conv", build.x, np.ones((6, 2, 3, 3), np.float32), strides=[2, 2], group=2, pads=[1, 1, 1, 1])
    assert work_of(build, output) == Work(
        products=6 * 4 * 4 * 2 * 3 * 3, weight_bytes=6 * 2 * 9 * 4, fused_bytes=384, unfused_bytes=384
    )


def test_a_bilinear_sample_is_four_multiply_adds() -> None:
    build = Builder([1, 3, 4, 4])
    output = build.add("GridSample", build.x, np.zeros((1, 5, 2, 2), np.float32))
    assert work_of(build, output).samples == 4 * 3 * 5 * 2


def test_views_write_nothing_and_a_weight_that_is_read_twice_is_counted_once() -> None:
    build = Builder([4, 4])
    weight = gs.Constant("weight", np.ones((4, 4), np.float32))
    view = build.add("Reshape", build.add("MatMul", build.x, weight), np.array([16]))
    back = build.add("Reshape", view, np.array([4, 4]))
    work = work_of(build, build.add("MatMul", back, weight))
    assert work.weight_bytes == 64 + 8 + 16
    assert work.fused_bytes == work.unfused_bytes == 2 * 64


@pytest.fixture(scope="module")
def works(onnx_folder: Path) -> dict[str, Work]:
    text = count_file(onnx_folder / "text_encoder.onnx", SIZES, stage="text encoder")
    return {**text, **count_file(onnx_folder / "detector.onnx", {**SIZES, **HW})}


def flops_in_torch(run: Callable[[], object]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def test_products_are_those_that_torch_counts_in_the_same_module(
    works: dict[str, Work], demo_model: GroundingDino
) -> None:
    ids = torch.arange(SIZES["tokens"], dtype=torch.int32).expand(SIZES["batch"], -1)
    pixels = torch.zeros(SIZES["batch"], 3, HW["height"], HW["width"], dtype=torch.uint8)
    valid_hw = torch.tensor([[HW["height"], HW["width"]]] * SIZES["batch"], dtype=torch.int32)
    features = torch.zeros(SIZES["batch"], SIZES["tokens"], 128)
    text = flops_in_torch(lambda: demo_model.encode_text(ids, ids, ids))
    image = flops_in_torch(lambda: demo_model.detect(pixels, valid_hw, features, ids, ids))
    counted = {name: 2 * work.products for name, work in works.items()}
    assert counted.pop("text encoder") == text
    # torch also computes what no answer reads: the logits of two layers, the boxes of two and the step after the last.
    rows, config = SIZES["batch"] * demo_model.config.num_queries, demo_model.config
    head = 2 * rows * config.hidden_dim * (2 * config.hidden_dim + 4)
    logits = 2 * rows * config.hidden_dim * SIZES["tokens"]
    values_of_embeddings = 2 * rows * config.hidden_dim**2  # of the first decoder layer: constant, so folded
    fusions = demo_model.transformer.encoder.fusion_layers
    weights = sum(flops_in_torch(partial(products_of_weights, layer)) for layer in fusions)
    assert sum(counted.values()) == image - 3 * head - 2 * logits - values_of_embeddings - weights


def products_of_weights(layer: FusionLayer) -> object:
    """What the exporter computes once and for all."""
    return layer.attn._keys_with_values(), layer.attn._key_bias(), layer.attn._out_of_seen()


def test_every_stage_has_work_and_its_own_share(works: dict[str, Work]) -> None:
    assert list(works) == [name for name, _ in STAGES]
    assert all(work.products > 0 and work.fused_bytes > 0 for name, work in works.items())
    assert {name for name, work in works.items() if work.samples} == {"encoder, deformable attention", "decoder"}


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("/encoder/fusion_layers.0/attn/MatMul", "fusion"),
        ("transformer.encoder.fusion_layers.0.attn", "fusion"),
        ("/encoder/layers.3/self_attn/value_proj/MatMul", "encoder, deformable attention"),
        ("/encoder/layers.3/linear1/MatMul", "encoder, feed-forward and norms"),
        ("backbone.0.layers.2.blocks.1.attn.qkv", "backbone, stage 3"),
        ("/decoder/bbox_embed/layers.0/MatMul", "decoder"),
        ("/bbox_embed/layers.0/MatMul", "decoder"),
        ("transformer.enc_out_bbox_embed.layers.0", "proposals, masks, places"),
        ("/MatMul", "proposals, masks, places"),
    ],
)
def test_names_of_nodes_and_of_the_originals_modules_tell_the_stage(path: str, stage: str) -> None:
    assert stage_of(path) == stage


def test_the_fusion_costs_a_fraction_of_the_originals() -> None:
    original = read_original_work(Path("tests/goldens/swint_work.json"))
    assert original.sizes == {"batch": 1, "height": 800, "width": 1216, "tokens": 16}
    table = format_work({"fusion": Work(products=6_000_000_000)}, original).splitlines()
    numbers = [float(number) for number in table[1].split()[1:]]
    assert numbers[0] == 12.0
    assert numbers[5] > 10 * numbers[0]


def test_the_report_holds_every_number(works: dict[str, Work], tmp_path: Path) -> None:
    write_work(works, {**SIZES, **HW}, None, tmp_path / "flops.json")
    content = json.loads((tmp_path / "flops.json").read_text())
    assert content["total"]["products"] == sum(work.products for work in works.values())
    assert content["stages"]["fusion"]["weight_bytes"] == works["fusion"].weight_bytes
    rows = format_work(works, None).splitlines()[1:]
    assert [row.rsplit(maxsplit=5)[0].strip() for row in rows] == [*works, "all"]
    assert float(rows[-1].split()[-3]) == pytest.approx(content["total"]["weight_bytes"] / 2**20, abs=0.1)


def test_a_file_of_the_originals_work_that_is_damaged_says_how_it_is_made(tmp_path: Path) -> None:
    (tmp_path / "work.json").write_text('{"batch": 1}')
    with pytest.raises(ConfigError, match=r"work.json cannot be read[\s\S]*make goldens writes it"):
        read_original_work(tmp_path / "work.json")
