"""The command `gdino-build`: one sub-command a stage. The Makefile calls them in order."""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from gdino_build.checkpoint import weights_files
from gdino_build.model import ARCHITECTURES, DEMO, SWINT_OGC
from gdino_build.original_config import find_architecture
from gdino_build.precision import GRAPHS, LOW_PRECISIONS
from gdino_build.profile import Profile, load_profile, profile_names
from gdino_build.random_weights import RANDOM_WEIGHTS_SEED, random_state_dict
from gdino_build.weights.sources import MIRROR_VARIABLE, SOURCE_NAMES
from gdino_core import contract
from gdino_core.errors import ConfigError, ExportError, GdinoError, ParityError

if TYPE_CHECKING:
    from gdino_build.model import GroundingDino
    from gdino_build.parity import Arrays

WEIGHTS_FILE_NAME = "weights.json"  # beside the exported graphs: what they were exported from
_EXAMPLES = """examples:
  gdino-build export --profile demo-cpu
  gdino-build export --profile swint-cpu --random-weights
  gdino-build inspect --profile demo-cpu
  gdino-build sensitivity --profile demo-cpu --precision bf16
  gdino-build specialise --profile swint-cpu --size 800x1216
  gdino-build flops --profile swint-cpu --size 800x1216 --tokens 16
  gdino-build verify --profile demo-cpu
  gdino-build evaluate --profile swint-cpu-int8 --coco instances_val2017.json --images val2017
  gdino-build accuracy
  gdino-build bench-engine --profiles swint-cpu swint-cpu-bf16 swint-cpu-int8 --rounds 7
  gdino-build doctor-checkpoint weights/mine.pth --config weights/cfg_odvg.py
  gdino-build weights swint
"""
_WEIGHTS_EXAMPLES = """examples:
  gdino-build weights swint
  gdino-build weights swinb --mirror https://host/models --source mirror github
  gdino-build weights swint --file ~/Downloads/groundingdino_swint_ogc.pth --source file

exit codes: 0 the file is there and verified, 1 it is not, 2 wrong arguments, 130 interrupted
"""
_OPEN = "fix it; otherwise any will do"
_EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main() -> int:
    """Run one sub-command; errors that a user can mend are printed, with how to mend them."""
    arguments = _parser().parse_args()
    started = time.monotonic()
    try:
        arguments.run(arguments)
    except GdinoError as error:
        print(f"gdino-build {arguments.command}: {error}", file=sys.stderr)
        return 1
    if arguments.command in ("export", "clean", "precision", "engine", "assemble", "verify"):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{arguments.command}: {time.monotonic() - started:.1f} s, peak memory {peak:.1f} GiB")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gdino-build",
        description="Build a Triton model repository for GroundingDINO, stage by stage.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="STAGE")
    stages: tuple[tuple[str, Callable[[Profile, argparse.Namespace], None], str], ...] = (
        (
            "weights-stamp",
            _weights_stamp,
            "note which weights are used, so that make rebuilds when they change",
        ),
        ("save-random", _save_random, "write the random weights to a .safetensors file"),
        ("export", _export, "checkpoint to ONNX: text encoder and detector"),
        ("clean", _clean, "clean the exported graphs"),
        ("inspect", _inspect, "print what the graphs hold, before and after cleaning"),
        ("precision", _precision, "cleaned graphs to those of the profile's precision; INT8 is calibrated"),
        ("sensitivity", _sensitivity, "find what a lower precision harms, group by group of nodes"),
        ("ranges", _ranges, "prove that FP16 does not overflow: largest numbers at the largest sizes"),
        ("specialise", _specialise, "fold all shape arithmetic of the detector for one picture size"),
        ("flops", _flops, "count multiply-adds and bytes, stage by stage"),
        ("engine", _engine, "graphs of the profile's precision to OpenVINO engines"),
        ("assemble", _assemble, "model_repository/ sources and engines to a Triton model repository"),
        ("serve", _serve, "serve the repository in the foreground"),
        ("evaluate", _evaluate, "measure AP on a data set in COCO's format, through the server"),
        ("verify", _verify, "compare every stage with the one before it, and the server with torch"),
    )
    for name, run, text in stages:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.set_defaults(run=partial(_run_stage, run))
        command.add_argument(
            "--profile",
            default="demo-cpu",
            help=f"one of {', '.join(profile_names())}, or a .toml file (default: %(default)s)",
        )
        command.add_argument("--out", type=Path, default=Path("out"), help="root of all outputs (default: %(default)s)")
        if name in ("weights-stamp", "export", "verify"):
            command.add_argument(
                "--random-weights",
                action="store_true",
                help="deterministic random weights instead of the checkpoint",
            )
        if name == "save-random":
            command.add_argument("file", type=Path)
        if name == "sensitivity":
            command.add_argument(
                "--precision", choices=LOW_PRECISIONS, default="fp16", help="to lower to (default: %(default)s)"
            )
        if name in ("specialise", "flops"):
            command.add_argument(
                "--size", type=_size, help="height x width of the padded picture (default: the first of [verify])"
            )
            command.add_argument(
                "--tokens",
                type=_count,
                **(
                    {"default": 16, "help": "of the prompt (default: %(default)s)"}
                    if name == "flops"
                    else {"help": _OPEN}
                ),
            )
            command.add_argument(
                "--batch",
                type=_count,
                **({"default": 1, "help": "pictures (default: %(default)s)"} if name == "flops" else {"help": _OPEN}),
            )
        if name == "evaluate":
            _add_dataset(command)
        if name == "specialise":
            command.add_argument(
                "--plugin", action="store_true", help="deformable attentions as TensorRT's plugin (full TensorRT only)"
            )
        if name in ("verify", "flops"):
            command.add_argument(
                "--goldens",
                type=Path,
                default=Path("tests/goldens"),
                help="answers of the original (default: %(default)s)",
            )
    doctor = commands.add_parser(
        "doctor-checkpoint",
        help="say what a checkpoint file is, and whether this project can build from it",
        description="Say what a checkpoint file is, and exit with 0 if this project can build from it.",
    )
    doctor.set_defaults(run=_doctor_checkpoint)
    doctor.add_argument("file", type=Path, help=".pth, .bin or .safetensors, or a folder that Hugging Face saved")
    doctor.add_argument(
        "--config",
        help=f"that it must fit: {', '.join(ARCHITECTURES)} or a configuration file of the original "
        "(default: what its shapes tell)",
    )
    accuracy = commands.add_parser(
        "accuracy",
        help="compare AP, size, latency and memory of several precisions and of the original",
        description="Measure all precisions of one model and the original on one data set, through their servers; writes "
        "out/accuracy.json, .md and .png, and fails where a gate is not held.",
    )
    accuracy.set_defaults(run=_accuracy)
    accuracy.add_argument(
        "--profiles",
        nargs="+",
        default=["demo-cpu", "demo-cpu-bf16", "demo-cpu-fp16", "demo-cpu-int8"],
        help="built profiles of one model, each of another precision (default: %(default)s)",
    )
    _add_dataset(accuracy)
    accuracy.add_argument("--no-original", action="store_true", help="leave the original out")
    accuracy.add_argument(
        "--reference", type=Path, default=Path(".venv-reference"), help="its environment (default: %(default)s)"
    )
    accuracy.add_argument("--out", type=Path, default=Path("out"), help="root of all outputs (default: %(default)s)")
    bench = commands.add_parser(
        "bench-engine",
        help="time the detector in several precisions beside the original, interleaved",
        description="Time built detectors beside the original in PyTorch, interleaved in one run; writes "
        "out/bench-engine.json.",
    )
    bench.set_defaults(run=_bench_engine)
    bench.add_argument(
        "--profiles",
        nargs="+",
        default=["swint-cpu", "swint-cpu-bf16", "swint-cpu-int8"],
        help="built profiles of one model, each of another precision (default: %(default)s)",
    )
    bench.add_argument("--size", type=_size, default=(800, 1216), help="height x width (default: 800x1216)")
    bench.add_argument("--rounds", type=_count, default=7, help="that count (default: %(default)s)")
    bench.add_argument("--out", type=Path, default=Path("out"), help="root of all outputs (default: %(default)s)")
    _add_weights(commands)
    return parser


def _add_dataset(command: argparse.ArgumentParser) -> None:
    command.add_argument("--coco", type=Path, metavar="FILE", help="annotations (default: the demo's held-out scenes)")
    command.add_argument("--images", type=Path, metavar="DIR", help="folder of the pictures (default: that of FILE)")
    command.add_argument("--limit", type=_count, metavar="N", help="only the first so many pictures")


def _add_weights(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "weights",
        help="download an official checkpoint, and verify it",
        description="Download an official checkpoint, or resume the download, and verify it.",
        epilog=_WEIGHTS_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=_weights)
    command.add_argument("model", help="swint, swinb or another section of the manifest")
    command.add_argument(
        "--mirror",
        metavar="URL",
        help="of a folder that holds the file under its official name; the environment variable "
        f"{MIRROR_VARIABLE} says the same and keeps secrets out of the list of processes",
    )
    command.add_argument("--file", type=Path, help="the file itself, downloaded by other means")
    command.add_argument(
        "--source",
        nargs="+",
        default=(),
        choices=SOURCE_NAMES,
        help="which sources, in which order (default: github, huggingface, then the mirror and the file if given)",
    )
    command.add_argument("--folder", type=Path, default=Path("weights"), help="where to (default: %(default)s)")
    command.add_argument("--manifest", type=Path, metavar="FILE", help="instead of build/gdino_build/weights.toml")
    command.add_argument(
        "--timeout",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="seconds without a byte after which a connection counts as broken (default: %(default)g)",
    )


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return count


def _size(text: str) -> tuple[int, int]:
    """HEIGHTxWIDTH, multiples of the stride."""
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()) or int(height) % contract.STRIDE or int(width) % contract.STRIDE:
        raise argparse.ArgumentTypeError(f"{text} is not HEIGHTxWIDTH in multiples of {contract.STRIDE}: 800x1216")
    return int(height), int(width)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return seconds


def _run_stage(stage: Callable[[Profile, argparse.Namespace], None], arguments: argparse.Namespace) -> None:
    stage(load_profile(arguments.profile), arguments)


def _doctor_checkpoint(arguments: argparse.Namespace) -> None:
    from gdino_build.checkpoint.doctor import check_buildable, describe_file, describe_state
    from gdino_build.checkpoint.names import official_state
    from gdino_build.checkpoint.reading import read_checkpoint

    config = find_architecture(arguments.config) if arguments.config else None
    file = read_checkpoint(arguments.file)
    print(describe_file(file))
    state = official_state(file.state)
    print(describe_state(state))
    print(check_buildable(state, config))


def _weights(arguments: argparse.Namespace) -> None:
    from gdino_build.weights.fetch import fetch_weights
    from gdino_build.weights.manifest import find_official, read_manifest
    from gdino_build.weights.sources import choose_sources
    from gdino_build.weights.transfer import Patience

    official = find_official(arguments.model, read_manifest(arguments.manifest))
    mirror = arguments.mirror or os.environ.get(MIRROR_VARIABLE, "")
    sources = choose_sources(official, mirror=mirror, file=arguments.file, names=arguments.source)
    with _resumable(arguments):
        path = fetch_weights(official, sources, arguments.folder, Patience(timeout_s=arguments.timeout))
    print(f"{path} is the official file: {official.size_bytes:,} bytes, sha256 {official.sha256}")


def _folder(profile: Profile, arguments: argparse.Namespace) -> Path:
    out: Path = arguments.out
    return out / profile.name


def _weights_of(profile: Profile, arguments: argparse.Namespace) -> str:
    """One line that changes when the graphs must be exported again."""
    made_with = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "openvino"))
    if arguments.random_weights:
        return f"{profile.architecture}, random, seed {RANDOM_WEIGHTS_SEED}, {made_with}"
    files = [(file, file.stat()) for file in weights_files(profile.checkpoint)]
    changed = ", ".join(f"{file}, {stat.st_size} bytes, modified {stat.st_mtime_ns}" for file, stat in files)
    return f"{profile.architecture}, {changed}, {made_with}"


def _check_files(paths: list[Path]) -> None:
    """Say which stage to run when what it makes is not there."""
    for path in paths:
        if not path.is_file():
            raise ExportError(f"{path} does not exist", fix="run the stages before this one, or make repository")


def _model(profile: Profile, arguments: argparse.Namespace) -> "GroundingDino":
    from gdino_build.checkpoint import canonical_state_dict, load_model, read_state_dict

    config = profile.architecture
    if arguments.random_weights:
        return load_model(config, random_state_dict(config))
    return load_model(config, canonical_state_dict(read_state_dict(profile.checkpoint)))


def _weights_stamp(profile: Profile, arguments: argparse.Namespace) -> None:
    path = _folder(profile, arguments) / "weights.txt"
    wanted = _weights_of(profile, arguments) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != wanted:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted, encoding="utf-8")


def _save_random(profile: Profile, arguments: argparse.Namespace) -> None:
    import safetensors.torch

    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(random_state_dict(profile.architecture), arguments.file)


def _export(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.engine import sha256_of
    from gdino_build.export import export_detector, export_text_encoder

    folder = _folder(profile, arguments) / "onnx" / "raw"
    weights: dict[str, object] = {"random_seed": RANDOM_WEIGHTS_SEED}
    model = _model(profile, arguments)
    if not arguments.random_weights:
        hashes = " ".join(map(sha256_of, weights_files(profile.checkpoint)))
        weights = {"file": str(profile.checkpoint), "sha256": hashes}
    # Gone while the graphs change: a broken-off export is exported again, not told to come from other weights.
    (folder / WEIGHTS_FILE_NAME).unlink(missing_ok=True)
    export_text_encoder(model, folder / f"{contract.MODEL_TEXT_ENCODER}.onnx")
    export_detector(model, folder / f"{contract.MODEL_DETECTOR}.onnx")
    (folder / WEIGHTS_FILE_NAME).write_text(json.dumps(weights) + "\n", encoding="utf-8")


def _clean(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.clean import clean_file

    folder = _folder(profile, arguments) / "onnx"
    _check_files([folder / "raw" / f"{name}.onnx" for name in GRAPHS])
    for name in GRAPHS:
        clean_file(folder / "raw" / f"{name}.onnx", folder / f"{name}.onnx")


def _inspect(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.inspection import format_comparison, summarise

    folder = _folder(profile, arguments) / "onnx"
    _check_files([folder / part / f"{name}.onnx" for part in ("raw", "") for name in GRAPHS])
    for name in GRAPHS:
        before, after = summarise(folder / "raw" / f"{name}.onnx"), summarise(folder / f"{name}.onnx")
        print(format_comparison(name, before, after), end="\n\n")


def _precision(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.precision.variants import write_variant

    folder = _folder(profile, arguments) / "onnx"
    _check_files([folder / f"{name}.onnx" for name in GRAPHS])
    target = folder / profile.precision
    if profile.precision != "int8":
        write_variant(folder, target, profile.precision)
        return
    cases, calibration = _calibration_cases(profile, folder)
    write_variant(
        folder,
        target,
        "int8",
        thresholds=_thresholds(folder, cases, profile),
        int8_rest="fp16" if profile.runtime == "tensorrt" else "fp32",
        calibration=calibration,
    )


def _calibration_cases(profile: Profile, folder: Path) -> "tuple[Sequence[Arrays], dict[str, object]]":
    """Pictures and prompts for INT8, and what the record says of them."""
    from gdino_build.accuracy.dataset import load_coco
    from gdino_build.precision.calibration_data import draw_cases
    from gdino_build.verify import picture_cases

    settings = profile.calibration
    assert settings is not None  # Profile checks it
    if "random_seed" in json.loads((folder / "raw" / WEIGHTS_FILE_NAME).read_text(encoding="utf-8")):
        # Nothing is accurate with random weights; drawn pictures give ranges as real as the answers.
        cases = picture_cases(profile.verify_sizes[:1], profile.preprocess.text_buckets)
        return cases, {"pictures": len(cases), "method": settings.method, "drawn": True}
    dataset = load_coco(settings.annotations, settings.images)
    cases = draw_cases(dataset, profile.preprocess, settings.pictures, settings.seed)
    told = {"pictures": len(cases), "method": settings.method, "seed": settings.seed}
    return cases, told | {"annotations": str(settings.annotations), "annotations_sha256": dataset.sha256}


def _thresholds(folder: Path, cases: "Sequence[Arrays]", profile: Profile) -> dict[str, dict[str, float]]:
    from tqdm import tqdm

    from gdino_build.precision.calibration_data import find_thresholds

    assert profile.calibration is not None
    progress = partial(tqdm, desc="calibrate", unit="picture", disable=None)
    return find_thresholds(folder, cases, profile.calibration.method, progress)


def _sensitivity(profile: Profile, arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from gdino_build.precision.sensitivity import count_groups, scan
    from gdino_build.precision.sensitivity_report import draw_sensitivities, format_sensitivities, write_sensitivities
    from gdino_build.verify import picture_cases

    folder = _folder(profile, arguments)
    _check_files([folder / "onnx" / f"{name}.onnx" for name in GRAPHS])
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

    folder = _folder(profile, arguments)
    _check_files([folder / "onnx" / f"{name}.onnx" for name in GRAPHS])
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


def _bench_engine(arguments: argparse.Namespace) -> None:
    import safetensors.torch

    from gdino_build.bench_engine import format_timings, original_timed, time_interleaved

    profiles = [load_profile(name) for name in arguments.profiles]
    folders = {profile.precision: arguments.out / profile.name for profile in profiles}
    _check_files([folder / "engine" / f"{contract.MODEL_DETECTOR}.xml" for folder in folders.values()])
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
    weights = arguments.out / "random" / f"{architecture.name}.safetensors"
    weights.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(random_state_dict(architecture), weights)
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
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(timings.to_dict(), indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    print(f"wrote {path}")


def _specialise(profile: Profile, arguments: argparse.Namespace) -> None:
    import onnx

    from gdino_build.clean import forget_inferred
    from gdino_build.deformable_plugin import passes_with_plugins
    from gdino_build.exact_passes import read_graph
    from gdino_build.small_operators import count_operators, format_counts
    from gdino_build.specialise import PASSES, save_graph, specialise_graph

    folder = _folder(profile, arguments) / "onnx"
    source = folder / profile.precision / f"{contract.MODEL_DETECTOR}.onnx"
    raw = folder / "raw" / source.name
    _check_files([raw, source])
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

    folder = _folder(profile, arguments)
    text_encoder, detector = (folder / "onnx" / f"{name}.onnx" for name in GRAPHS)
    _check_files([text_encoder, detector])
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


def _evaluate(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.accuracy.commands import run_evaluate

    _check_files([_folder(profile, arguments) / "repository" / "manifest.json"])
    with _resumable(arguments):
        run_evaluate(profile, arguments.out, coco=arguments.coco, images=arguments.images, limit=arguments.limit)


def _accuracy(arguments: argparse.Namespace) -> None:
    from gdino_build.accuracy.commands import run_accuracy

    with _resumable(arguments):
        run_accuracy(
            [load_profile(name) for name in arguments.profiles],
            arguments.out,
            coco=arguments.coco,
            images=arguments.images,
            limit=arguments.limit,
            reference=None if arguments.no_original else arguments.reference,
        )


@contextmanager
def _resumable(arguments: argparse.Namespace) -> Iterator[None]:
    """Say on Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"gdino-build {arguments.command}: interrupted; run it again to resume", file=sys.stderr)
        sys.exit(_EXIT_INTERRUPTED)


def _engine(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.engine import onnx_to_openvino

    folder = _folder(profile, arguments)
    for name in GRAPHS:
        onnx_to_openvino(folder / "onnx" / profile.precision / f"{name}.onnx", folder / "engine" / f"{name}.xml")


def _assemble(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.accuracy.gate_check import check_gates
    from gdino_build.assemble import RepositoryPlan, assemble_repository
    from gdino_core.openvino_engine import OpenVinoSettings

    folder = _folder(profile, arguments)
    exported = folder / "onnx" / "raw" / WEIGHTS_FILE_NAME
    _check_files([exported])
    for accepted in check_gates(
        out=arguments.out,
        graphs=folder / "onnx" / profile.precision,
        fp32_graphs=folder / "onnx",
        precision=profile.precision,
        is_demo=profile.architecture == DEMO,
        accepted=profile.accept_over_gate,
    ):
        print(f"accepted, because {profile.accept_over_gate}: {accepted}")
    plan = RepositoryPlan(
        sources=Path("model_repository"),
        engines=folder / "engine",
        preprocess=profile.preprocess,
        openvino=OpenVinoSettings(threads=profile.threads),
        max_batch_size=profile.max_batch_size,
        profile=profile.to_dict(),
        weights=json.loads(exported.read_text(encoding="utf-8")),
    )
    print(f"wrote {assemble_repository(plan, folder / 'repository')}")


def _serve(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.serve import serve
    from gdino_build.server_ports import ServerPorts

    folder = _folder(profile, arguments)
    serve(folder / "repository", ports=ServerPorts.from_environment(os.environ), log_file=folder / "server.log")


def _verify(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.verify import verify_profile
    from gdino_build.verify_report import TABLE_HEAD, format_row, write_rows

    folder = _folder(profile, arguments)
    _check_files([folder / "onnx" / "raw" / WEIGHTS_FILE_NAME, folder / "repository" / "manifest.json"])
    # We made the goldens of random weights and of the demo; a user's own checkpoint has none.
    golden_expected = profile.architecture == DEMO or (
        arguments.random_weights and profile.architecture in ARCHITECTURES.values()
    )
    rows = []
    print(TABLE_HEAD, flush=True)
    for row in verify_profile(
        profile, _model(profile, arguments), folder, arguments.goldens, golden_expected=golden_expected
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


if __name__ == "__main__":
    sys.exit(main())
