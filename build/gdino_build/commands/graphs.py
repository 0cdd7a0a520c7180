"""What is in a graph, what precision does to it, and how much work it is."""

import argparse
from functools import partial

from gdino_build.commands.stage import Commands, add_goldens, add_stage, check_files, count, folder_of, size
from gdino_build.model import SWINT_OGC
from gdino_build.precision import GRAPHS, LOW_PRECISIONS
from gdino_build.profile import Profile
from gdino_core import contract
from gdino_core.errors import ParityError


def register(commands: Commands) -> None:
    """Add these commands."""
    add_stage(commands, "inspect", _inspect, "print what the graphs hold, before and after cleaning")
    text = "find what a lower precision harms, group by group of nodes"
    sensitivity = add_stage(commands, "sensitivity", _sensitivity, text)
    sensitivity.add_argument(
        "--precision", choices=LOW_PRECISIONS, default="fp16", help="to lower to (default: %(default)s)"
    )
    text = "prove that FP16 does not overflow: largest numbers at the largest sizes"
    add_stage(commands, "ranges", _ranges, text)
    text = "fold all shape arithmetic of the detector for one picture size"
    specialise = add_stage(commands, "specialise", _specialise, text)
    specialise.add_argument("--tokens", type=count, help="of the prompt (default: any)")
    specialise.add_argument("--batch", type=count, help="pictures (default: any)")
    specialise.add_argument(
        "--plugin", action="store_true", help="deformable attentions as TensorRT's plugin (full TensorRT only)"
    )
    flops = add_stage(commands, "flops", _flops, "count multiply-adds and bytes, stage by stage")
    flops.add_argument("--tokens", type=count, default=16, help="of the prompt (default: %(default)s)")
    flops.add_argument("--batch", type=count, default=1, help="pictures (default: %(default)s)")
    add_goldens(flops)
    for command in (specialise, flops):
        command.add_argument("--size", type=size, help="height x width of the frame (default: the first of [verify])")


def _inspect(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.inspection import format_comparison, summarise

    folder = folder_of(profile, arguments) / "onnx"
    check_files([folder / part / f"{name}.onnx" for part in ("raw", "") for name in GRAPHS])
    for name in GRAPHS:
        before, after = summarise(folder / "raw" / f"{name}.onnx"), summarise(folder / f"{name}.onnx")
        print(format_comparison(name, before, after), end="\n\n")


def _sensitivity(profile: Profile, arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from gdino_build.precision.sensitivity import count_groups, scan
    from gdino_build.precision.sensitivity_report import draw_sensitivities, format_sensitivities, write_sensitivities
    from gdino_build.verify import picture_cases

    folder = folder_of(profile, arguments)
    check_files([folder / "onnx" / f"{name}.onnx" for name in GRAPHS])
    cases = picture_cases(profile.verify_sizes[:1], profile.preprocess.text_buckets)
    groups = scan(folder / "onnx", arguments.precision, cases)
    found = [one for one in tqdm(groups, total=count_groups(folder / "onnx"), unit="group", disable=None) if one]
    print(format_sensitivities(found))
    path = folder / f"sensitivity-{arguments.precision}.json"
    write_sensitivities(found, path)
    draw_sensitivities(found, arguments.precision, path.with_suffix(".png"))
    print(f"wrote {path} and {path.with_suffix('.png')}")


def _ranges(profile: Profile, arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from gdino_build.precision.ranges import LARGEST_FP16, format_ranges, largest_sizes, scan_ranges, write_ranges

    folder = folder_of(profile, arguments)
    check_files([folder / "onnx" / f"{name}.onnx" for name in GRAPHS])
    sizes = largest_sizes(profile.preprocess.resolution_buckets)
    progress = partial(tqdm, desc="pictures", unit="picture", disable=None)
    found = scan_ranges(folder / "onnx", sizes, profile.preprocess.text_buckets, progress)
    print(format_ranges(found))
    path = folder / "ranges-fp16.json"
    write_ranges(found, path)
    print(f"wrote {path}")
    if found[0].largest > LARGEST_FP16:
        raise ParityError(
            f"{found[0].tensor} reaches {found[0].largest:.0f}, and FP16 ends at {LARGEST_FP16:.0f}",
            fix="keep its group in FP32: gdino_build/precision/policy.py",
        )


def _specialise(profile: Profile, arguments: argparse.Namespace) -> None:
    import onnx

    from gdino_build.clean import forget_inferred, save_graph
    from gdino_build.deformable_plugin import passes_with_plugins
    from gdino_build.exact_passes import read_graph
    from gdino_build.small_operators import count_operators, format_counts
    from gdino_build.specialise import PASSES, specialise_graph

    folder = folder_of(profile, arguments) / "onnx"
    source = folder / profile.precision / f"{contract.MODEL_DETECTOR}.onnx"
    raw = folder / "raw" / source.name
    check_files([raw, source])
    height, width = arguments.size or profile.verify_sizes[0]
    sizes = {"height": height, "width": width, "tokens": arguments.tokens, "batch": arguments.batch}
    passes = passes_with_plugins() if arguments.plugin else PASSES
    graph = specialise_graph(read_graph(source), {name: size for name, size in sizes.items() if size}, passes)
    forget_inferred(graph)
    target = source.with_name(f"{source.stem}_{height}x{width}{'_plugin' if arguments.plugin else ''}.onnx")
    save_graph(graph, target)
    paths = {"raw": raw, "cleaned": folder / source.name, profile.precision: source, f"{height}x{width}": target}
    print(format_counts({name: count_operators(onnx.load(path).graph) for name, path in paths.items()}))
    print(f"wrote {target}")


def _flops(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.flops import count_file
    from gdino_build.flops_report import format_work, read_original_work, write_work

    folder = folder_of(profile, arguments)
    text_encoder, detector = (folder / "onnx" / f"{name}.onnx" for name in GRAPHS)
    check_files([text_encoder, detector])
    height, width = arguments.size or profile.verify_sizes[0]
    text_sizes = {"batch": arguments.batch, "tokens": arguments.tokens}
    sizes = {**text_sizes, "height": height, "width": width}
    works = count_file(text_encoder, text_sizes, stage="text encoder") | count_file(detector, sizes)
    original = read_original_work(arguments.goldens / "swint_work.json") if profile.architecture == SWINT_OGC else None
    if original and original.sizes != sizes:  # the original was counted at one size only
        original = None
    print(format_work(works, original))
    path = folder / "flops.json"
    write_work(works, sizes, original, path)
    print(f"wrote {path}")
