"""What is served: that it is the checkpoint's answer, how accurate it is, and how fast."""

import argparse
from pathlib import Path

from gdino_build.commands.stage import (
    WEIGHTS_FILE_NAME,
    Commands,
    add_goldens,
    add_out,
    add_random_weights,
    add_stage,
    check_files,
    count,
    folder_of,
    model_of,
    resumable,
    size,
    write_random_weights,
)
from gdino_build.model import ARCHITECTURES, DEMO
from gdino_build.profile import Profile, load_profile
from gdino_build.whole_file import write_json
from gdino_core import contract
from gdino_core.errors import ConfigError, ParityError


def register(commands: Commands) -> None:
    """Add these commands."""
    text = "compare every stage with the one before it, and the server with torch"
    verify = add_stage(commands, "verify", _verify, text)
    add_random_weights(verify)
    add_goldens(verify)
    text = "tell how much of the frames is padding, for the picture sizes of a data set"
    buckets = add_stage(commands, "buckets", _buckets, text)
    buckets.add_argument(
        "--coco", type=Path, metavar="FILE", help="annotations that list the sizes (default: those of 5,000 of COCO)"
    )
    buckets.add_argument("--add", type=count, metavar="N", help="suggest so many more buckets, the best first")
    text = "measure AP on a data set in COCO's format, through the server"
    add_dataset(add_stage(commands, "evaluate", _evaluate, text))
    accuracy = commands.add_parser(
        "accuracy",
        help="compare AP, size, latency and memory of several precisions and of the original",
        description="Measure all precisions of one model and the original on one data set, through their servers; "
        "writes out/accuracy.json, .md and .png, and fails where a gate is not held.",
    )
    accuracy.set_defaults(run=_accuracy)
    _add_profiles(accuracy, "demo-cpu", "demo-cpu-bf16", "demo-cpu-fp16", "demo-cpu-int8")
    add_dataset(accuracy)
    accuracy.add_argument("--no-original", action="store_true", help="leave the original out")
    accuracy.add_argument(
        "--reference", type=Path, default=Path(".venv-reference"), help="its environment (default: %(default)s)"
    )
    bench = commands.add_parser(
        "bench-engine",
        help="time the detector in several precisions beside the original, interleaved",
        description="Time built detectors beside the original in PyTorch, interleaved in one run; writes "
        "out/bench-engine.json.",
    )
    bench.set_defaults(run=_bench_engine)
    _add_profiles(bench, "swint-cpu", "swint-cpu-bf16", "swint-cpu-int8")
    bench.add_argument("--size", type=size, default=(800, 1216), help="height x width (default: 800x1216)")
    bench.add_argument("--rounds", type=count, default=7, help="that count (default: %(default)s)")
    gpu = commands.add_parser(
        "gpu-check",
        help="compare and time whatever can run the model on the GPU here",
        description="Compare TensorRT, TensorRT-RTX, ONNX Runtime, PyTorch and the original with the golden answers, "
        "and time them in turn; writes out/gpu-check.json and .md. Says of each that is not there why.",
    )
    gpu.set_defaults(run=_gpu_check)
    _add_profiles(gpu, "gpu-fp32", "gpu-fp16", "gpu-int8")
    add_random_weights(gpu)
    add_goldens(gpu)
    gpu.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(default: %(default)s)")
    gpu.add_argument("--batches", type=count, nargs="+", default=[1, 4, 8], help="batch sizes (default: 1 4 8)")
    gpu.add_argument("--rounds", type=count, default=10, help="in which all take turns (default: %(default)s)")
    gpu.add_argument("--size", type=size, help="height x width of what is timed (default: the first of [verify])")
    for command in (accuracy, bench, gpu):
        add_out(command)


def _add_profiles(command: argparse.ArgumentParser, *default: str) -> None:
    command.add_argument(
        "--profiles",
        nargs="+",
        default=list(default),
        metavar="PROFILE",
        help=f"built profiles of one model, each of another precision (default: {' '.join(default)})",
    )


def _verify(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.verify import verify_profile
    from gdino_build.verify_report import TABLE_HEAD, format_row, write_rows

    folder = folder_of(profile, arguments)
    check_files([folder / "onnx" / "raw" / WEIGHTS_FILE_NAME, folder / "repository" / "manifest.json"])
    # We made the goldens of random weights and of the demo; a user's own checkpoint has none.
    golden_expected = profile.architecture == DEMO or (
        arguments.random_weights and profile.architecture in ARCHITECTURES.values()
    )
    rows = []
    print(TABLE_HEAD, flush=True)
    for row in verify_profile(
        profile, model_of(profile, arguments), folder, arguments.goldens, golden_expected=golden_expected
    ):
        print(format_row(row), flush=True)
        rows.append(row)
    path = folder / "verify.json"
    write_rows(rows, path)
    print(f"wrote {path}")
    if failed := [row.stage for row in rows if not row.passed]:
        raise ParityError(
            f"{', '.join(failed)} differ{'s' if len(failed) == 1 else ''} from the stage before",
            fix="the first stage that fails has the fault; the ones after it inherit it",
        )


def _buckets(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.padding import add_buckets, format_padding, measure_padding, read_coco_sizes, read_dataset_sizes

    sizes = read_dataset_sizes(arguments.coco) if arguments.coco else read_coco_sizes()
    print(format_padding(measure_padding(sizes, profile.preprocess)))
    if not arguments.add:
        return
    more = add_buckets(sizes, profile.preprocess, arguments.add)
    print(f"\nwith {len(more.resolution_buckets) - len(profile.preprocess.resolution_buckets)} more:")
    print(format_padding(measure_padding(sizes, more)))
    print(f"resolution_buckets = {[list(bucket) for bucket in more.resolution_buckets]}")


def _evaluate(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.accuracy.commands import run_evaluate

    check_files([folder_of(profile, arguments) / "repository" / "manifest.json"])
    with resumable(arguments):
        run_evaluate(profile, arguments.out, coco=arguments.coco, images=arguments.images, limit=arguments.limit)


def _accuracy(arguments: argparse.Namespace) -> None:
    from gdino_build.accuracy.commands import run_accuracy

    with resumable(arguments):
        run_accuracy(
            [load_profile(name) for name in arguments.profiles],
            arguments.out,
            coco=arguments.coco,
            images=arguments.images,
            limit=arguments.limit,
            reference=None if arguments.no_original else arguments.reference,
        )


def _gpu_check(arguments: argparse.Namespace) -> None:
    from gdino_build.gpu_check.check import CheckOptions, run_gpu_check

    profiles = [load_profile(name) for name in arguments.profiles]
    options = CheckOptions(
        device=arguments.device,
        batches=tuple(arguments.batches),
        rounds=arguments.rounds,
        image_hw=arguments.size,
        goldens=arguments.goldens,
        out=arguments.out,
    )
    run_gpu_check(profiles, model_of(profiles[0], arguments), options)


def _bench_engine(arguments: argparse.Namespace) -> None:
    from gdino_build.bench_engine import format_timings, original_timed, time_interleaved

    profiles = [load_profile(name) for name in arguments.profiles]
    folders = {profile.precision: arguments.out / profile.name for profile in profiles}
    check_files([folder / "engine" / f"{contract.MODEL_DETECTOR}.xml" for folder in folders.values()])
    if len({profile.architecture for profile in profiles}) > 1 or len(folders) < len(profiles):
        raise ConfigError(
            f"{', '.join(arguments.profiles)} are not one model in several precisions", fix="name one profile for each"
        )
    architecture = profiles[0].architecture
    if architecture not in ARCHITECTURES.values():
        raise ConfigError(
            "only official architectures have an original to compare with", fix="choose a shipped profile"
        )
    # What the original is given need not be what the engines were made of: time does not depend on it.
    weights = write_random_weights(architecture, arguments.out)
    with original_timed(
        root=Path.cwd(),
        environment=Path(".venv-reference"),
        model=architecture.name.partition("-")[0],
        weights=weights,
        image_hw=arguments.size,
        threads=profiles[0].threads,
    ) as original:
        engines = {name: folder / "engine" / f"{contract.MODEL_DETECTOR}.xml" for name, folder in folders.items()}
        timings = time_interleaved(engines, original, arguments.size, arguments.rounds, profiles[0].threads)
    print(format_timings(timings))
    path = arguments.out / "bench-engine.json"
    write_json(path, timings.to_dict())
    print(f"wrote {path}")


def add_dataset(command: argparse.ArgumentParser) -> None:
    """Add --coco, --images and --limit."""
    command.add_argument("--coco", type=Path, metavar="FILE", help="annotations (default: the demo's held-out scenes)")
    command.add_argument("--images", type=Path, metavar="DIR", help="folder of the pictures (default: that of FILE)")
    command.add_argument("--limit", type=count, metavar="N", help="only the first so many pictures")
