"""How much a server bears: throughput and latency under load."""

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from gdino_build.commands.measure import add_dataset
from gdino_build.commands.stage import (
    Commands,
    above_zero,
    add_random_weights,
    add_stage,
    check_files,
    count,
    folder_of,
    write_random_weights,
)
from gdino_build.model import ARCHITECTURES, DEMO
from gdino_build.profile import Profile
from gdino_build.whole_file import write_json, write_text
from gdino_core.errors import ConfigError, ServerError

if TYPE_CHECKING:
    from gdino_build.accuracy.dataset import CocoDataset
    from gdino_build.accuracy.original import Original
    from gdino_build.load.bench_figures import Turn
    from gdino_build.load.perf_analyzer import PerfAnalyzer
    from gdino_build.serve import RunningServer

_MOST_PICTURES = 40  # of different sizes; they are sent again and again
_UNBOUNDED = 64  # requests in a queue that a soak takes for many where the profile sets no limit


def register(commands: Commands) -> None:
    """Add these commands."""
    text = "measure throughput and latency of the server under load, beside its bare engine and the original"
    bench = add_stage(commands, "bench", _bench, text)
    add_random_weights(bench)
    _add_pictures(bench)
    bench.add_argument(
        "--concurrency", type=count, nargs="+", default=[1, 2, 4, 8, 16], help="levels (default: 1 2 4 8 16)"
    )
    bench.add_argument(
        "--turns", type=count, default=1, help="of each level; 3 or more on a shared machine (default: 1)"
    )
    bench.add_argument("--seconds", type=above_zero, default=4.0, help="of a window (default: %(default)s)")
    bench.add_argument("--no-original", action="store_true", help="leave the original out")
    bench.add_argument(
        "--perf-analyzer", type=Path, default=Path(".venv-perf"), help="its environment (default: %(default)s)"
    )
    bench.add_argument(
        "--reference", type=Path, default=Path(".venv-reference"), help="that of the original (default: %(default)s)"
    )
    text = "hold twice the load that the server can answer, and tell errors, growth of memory and restarts"
    soak = add_stage(commands, "soak", _soak, text)
    _add_pictures(soak)
    soak.add_argument("--minutes", type=above_zero, default=10.0, help="how long (default: %(default)g)")
    soak.add_argument(
        "--timeout",
        type=above_zero,
        help="seconds that a request may wait before a step (default: twice what a full queue takes)",
    )


def _add_pictures(command: argparse.ArgumentParser) -> None:
    add_dataset(command)
    command.add_argument(
        "--prompts", nargs="+", metavar="LABEL", help="to ask about the pictures of --images, without annotations"
    )


def _bench(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.load.bench_figures import BenchReport
    from gdino_build.load.perf_analyzer import PerfAnalyzer
    from gdino_build.load.report import format_report, write_report
    from gdino_build.machine import describe_hardware

    folder = folder_of(profile, arguments)
    check_files([folder / "repository" / "manifest.json"])
    perf_analyzer = PerfAnalyzer(environment=arguments.perf_analyzer)
    perf_analyzer.check()
    dataset = _dataset(folder, arguments)
    report = BenchReport(
        hardware=describe_hardware(),
        profile=profile.name,
        pictures=len(dataset.pictures),
        labels=len(dataset.labels),
        at_once=_at_once(profile),
        turns=_turns(profile, arguments, dataset, perf_analyzer),
    ).to_dict()
    print(format_report(report), end="")
    print(f"wrote {', '.join(map(str, write_report(report, folder)))}")


def _turns(
    profile: Profile, arguments: argparse.Namespace, dataset: "CocoDataset", perf_analyzer: "PerfAnalyzer"
) -> "list[Turn]":
    """Serve the profile, and measure it beside its bare engine and the original, with a progress bar."""
    from tqdm import tqdm

    from gdino_build.accuracy.original import original_running
    from gdino_build.load.bare_engine import BareEngine
    from gdino_build.load.bench import Bench, measure_levels
    from gdino_build.load.perf_analyzer import write_requests

    folder = folder_of(profile, arguments)
    original = None if arguments.no_original else _original(profile, dataset, arguments)
    files = [picture.path for picture in dataset.pictures]
    pictures = [file.read_bytes() for file in files]
    requests_file = folder / "bench-requests.json"
    write_requests(pictures, dataset.labels, requests_file)
    concurrencies = arguments.concurrency * arguments.turns
    engine = BareEngine(
        folder / "engine", profile.openvino, profile.preprocess, pictures, dataset.labels, _at_once(profile)
    )
    turns = []
    with (
        _serving(profile, folder, "bench-server.log") as server,
        original_running(original, dataset) if original else contextlib.nullcontext() as answer,
        tqdm(total=len(concurrencies), unit="level", disable=None) as bar,
    ):
        bench = Bench(
            server=server,
            perf_analyzer=perf_analyzer,
            requests_file=requests_file,
            engine=engine,
            original=answer,
            files=files,
            seconds=arguments.seconds,
            log_folder=folder,
        )
        for turn in measure_levels(bench, concurrencies, bar.set_postfix_str):
            turns.append(turn)
            bar.update()
    return turns


def _at_once(profile: Profile) -> int:
    """Pictures that are handed to the engine together."""
    return profile.serving.batches_at_once * profile.max_batch_size


def _soak(profile: Profile, arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from gdino_build.load.mixed_load import Mix
    from gdino_build.load.soak import SoakPlan, run_soak
    from gdino_build.load.soak_verdict import format_verdict, judge
    from gdino_build.machine import describe_hardware

    folder = folder_of(profile, arguments)
    check_files([folder / "repository" / "manifest.json"])
    dataset = _dataset(folder, arguments)
    mix = Mix(pictures=[picture.path.read_bytes() for picture in dataset.pictures], labels=dataset.labels)
    plan = SoakPlan(
        seconds=60 * arguments.minutes,
        queue_size=profile.serving.max_queue_size or _UNBOUNDED,
        at_once=_at_once(profile),
        timeout_s=arguments.timeout,
    )
    with (
        _serving(profile, folder, "soak-server.log") as server,
        tqdm(total=round(plan.seconds), unit="s", disable=None) as bar,
    ):

        def progress(text: str, held_s: float) -> None:
            bar.set_postfix_str(text, refresh=False)
            bar.update(held_s - bar.n)

        run = run_soak(server, mix, plan, progress)
    report = {"hardware": describe_hardware(), "profile": profile.name} | judge(run)
    print(format_verdict(report), end="")
    write_json(folder / "soak.json", report)
    write_text(folder / "soak.md", format_verdict(report))
    print(f"wrote {folder / 'soak.json'} and {folder / 'soak.md'}")
    if report["not_held"]:
        raise ServerError("; ".join(report["not_held"]), fix=f"see {folder / 'soak.json'} and the server's log")


def _serving(profile: Profile, folder: Path, log_name: str) -> "contextlib.AbstractContextManager[RunningServer]":
    from gdino_build.serve import running_server

    cache_bytes = profile.serving.cache_mib << 20
    return running_server(folder / "repository", log_file=folder / log_name, cache_bytes=cache_bytes)


def _dataset(folder: Path, arguments: argparse.Namespace) -> "CocoDataset":
    """What to send: the data set --coco, the pictures --images, or scenes of the demo, which suit any model."""
    from gdino_build.accuracy.dataset import load_coco
    from gdino_build.load.own_pictures import write_dataset

    limit = arguments.limit or _MOST_PICTURES
    if arguments.prompts:
        if not arguments.images:
            raise ConfigError("--prompts ask about pictures that are not named", fix="name their folder: --images")
        return write_dataset(arguments.images, arguments.prompts, folder / "load-pictures.json", limit)
    coco = arguments.coco or arguments.out / "demo-scenes" / "jpeg" / "annotations.json"
    if not coco.is_file():
        raise ConfigError(f"{coco} does not exist", fix="run make bench or make soak, or name pictures: --coco")
    return load_coco(coco, arguments.images or coco.parent, limit)


def _original(profile: Profile, dataset: "CocoDataset", arguments: argparse.Namespace) -> "Original | None":
    """What the original is run with: the demo's checkpoint, or random weights, for speed does not depend on them."""
    from gdino_build.accuracy.original import Original

    architecture = profile.architecture
    if architecture not in ARCHITECTURES.values():
        print(f"the original is left out: it has no configuration {architecture.name}")
        return None
    weights = profile.checkpoint if architecture == DEMO else write_random_weights(architecture, arguments.out)
    original = Original(
        root=Path.cwd(),
        environment=arguments.reference,
        model=architecture.name.partition("-")[0],
        weights=weights,
        images=dataset.pictures[0].path.parent,
        out=arguments.out / f"original-{architecture.name}",
    )
    original.check_environment()
    return original
