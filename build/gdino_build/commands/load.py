"""How much a server bears: throughput and latency under load."""

import argparse
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gdino_build.commands.measure import add_dataset
from gdino_build.commands.stage import Commands, add_random_weights, add_stage, check_files, count, folder_of, seconds
from gdino_build.model import ARCHITECTURES, DEMO
from gdino_build.profile import Profile
from gdino_build.random_weights import random_state_dict
from gdino_build.whole_file import write_json, write_text
from gdino_core.errors import ConfigError, ServerError

if TYPE_CHECKING:
    from gdino_build.accuracy.dataset import CocoDataset
    from gdino_build.accuracy.original import Original

_MOST_PICTURES = 40  # of different sizes; they are sent again and again
_PROBE_S = 20.0  # in which a soak measures what the server can answer
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
    bench.add_argument("--seconds", type=seconds, default=4.0, help="of a window (default: %(default)s)")
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
    soak.add_argument("--minutes", type=seconds, default=10.0, help="how long (default: %(default)g)")
    soak.add_argument(
        "--timeout",
        type=seconds,
        help="seconds that a request may wait before a step (default: twice what a full queue takes)",
    )


def _add_pictures(command: argparse.ArgumentParser) -> None:
    add_dataset(command)
    command.add_argument(
        "--prompts", nargs="+", metavar="LABEL", help="to ask about the pictures of --images, without annotations"
    )


def _bench(profile: Profile, arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from gdino_build.accuracy.original import original_running
    from gdino_build.load.bench import BenchPlan, BenchReport, measure_levels
    from gdino_build.load.contenders import BareEngine
    from gdino_build.load.perf_analyzer import PerfAnalyzer
    from gdino_build.load.report import format_report, write_report
    from gdino_build.machine import describe_hardware
    from gdino_build.serve import running_server

    folder = folder_of(profile, arguments)
    check_files([folder / "repository" / "manifest.json"])
    perf_analyzer = PerfAnalyzer(environment=arguments.perf_analyzer)
    perf_analyzer.check()
    dataset = _dataset(folder, arguments)
    pictures = [picture.path.read_bytes() for picture in dataset.pictures]
    at_once = profile.serving.batches_at_once * profile.max_batch_size
    engine = BareEngine(folder / "engine", profile.openvino, profile.preprocess, pictures, dataset.labels, at_once)
    original = None if arguments.no_original else _original(profile, dataset, arguments)
    turns = []
    bar = tqdm(total=len(arguments.concurrency), unit="level", disable=None)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            running_server(
                folder / "repository",
                log_file=folder / "bench-server.log",
                cache_bytes=profile.serving.cache_mib << 20,
            )
        )
        compared = None
        if original:
            process = stack.enter_context(original_running(original, dataset))
            compared = (process, [picture.path for picture in dataset.pictures])
        plan = BenchPlan(concurrencies=arguments.concurrency, seconds=arguments.seconds, folder=folder)
        for turn in measure_levels(
            server, perf_analyzer, engine, compared, pictures, dataset.labels, plan, bar.set_postfix_str
        ):
            turns.append(turn)
            bar.update()
    bar.close()
    report = BenchReport(
        hardware=describe_hardware(),
        profile=profile.name,
        pictures=len(pictures),
        labels=len(dataset.labels),
        at_once=at_once,
        turns=turns,
    ).to_dict()
    print(format_report(report), end="")
    print(f"wrote {', '.join(map(str, write_report(report, folder)))}")


def _soak(profile: Profile, arguments: argparse.Namespace) -> None:
    import asyncio

    from gdino_build.load.soak import Load, Mix, hold_load, measure_capacity
    from gdino_build.load.soak_verdict import SoakRun, format_verdict, judge
    from gdino_build.machine import describe_hardware, session_processes
    from gdino_build.serve import running_server

    folder, serving = folder_of(profile, arguments), profile.serving
    check_files([folder / "repository" / "manifest.json"])
    dataset = _dataset(folder, arguments)
    mix = Mix(pictures=[picture.path.read_bytes() for picture in dataset.pictures], labels=dataset.labels)
    duration_s, queue_size = 60 * arguments.minutes, serving.max_queue_size or _UNBOUNDED
    with running_server(
        folder / "repository", log_file=folder / "soak-server.log", cache_bytes=serving.cache_mib << 20
    ) as server:
        clients = max(1, queue_size // 2)
        capacity = asyncio.run(measure_capacity(server.grpc_url, mix, clients, min(_PROBE_S, duration_s)))
        if not capacity:
            raise ServerError("the server answered nothing", fix=f"its log says why: {server.log_file}")
        timeout_s = arguments.timeout or 2 * queue_size / capacity
        print(
            f"the server answers {capacity:.3g} requests/s; it gets twice as many for {arguments.minutes:g} minutes, "
            f"each of which may wait {timeout_s:.3g} s",
            flush=True,
        )
        before = session_processes(server.pid)
        load = Load(per_s=2 * capacity, seconds=duration_s, timeout_s=timeout_s)
        with _sampling(server.pid, duration_s) as memory:
            outcomes = asyncio.run(hold_load(server.grpc_url, mix, load))
        after = session_processes(server.pid)
    run = SoakRun(
        outcomes=outcomes,
        memory_bytes=memory,
        processes_before=before,
        processes_after=after,
        # One step makes a request wait; then come the batches that are handed over together with it.
        latest_s=timeout_s + 2 * serving.batches_at_once * profile.max_batch_size / capacity,
    )
    report = judge(run) | {
        "hardware": describe_hardware(),
        "profile": profile.name,
        "minutes": arguments.minutes,
        "capacity_per_s": round(capacity, 2),
        "per_s": round(2 * capacity, 2),
    }
    print(format_verdict(report), end="")
    write_json(folder / "soak.json", report)
    write_text(folder / "soak.md", format_verdict(report))
    print(f"wrote {folder / 'soak.json'} and {folder / 'soak.md'}")
    if report["not_held"]:
        raise ServerError("; ".join(report["not_held"]), fix=f"see {folder / 'soak.json'} and the server's log")


@contextlib.contextmanager
def _sampling(leader: int, duration_s: float) -> Iterator[list[int]]:
    """Note the memory of a session while a `with` block lasts, with a bar of its time."""
    from tqdm import tqdm

    from gdino_build.machine import session_bytes

    samples: list[int] = []
    done = threading.Event()
    interval_s = min(5.0, duration_s / 20)

    def sample() -> None:
        with tqdm(total=round(duration_s), unit="s", disable=None) as bar:
            while not done.wait(interval_s):
                samples.append(session_bytes(leader))
                bar.update(min(interval_s, bar.total - bar.n))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def _dataset(folder: Path, arguments: argparse.Namespace) -> "CocoDataset":
    """What to send: the data set --coco, the pictures --images, or scenes of the demo, which suit any model."""
    from gdino_build.accuracy.dataset import load_coco
    from gdino_build.load.own_pictures import write_dataset

    limit = arguments.limit or _MOST_PICTURES
    if arguments.prompts:
        if not arguments.images:
            raise ConfigError("--prompts ask about pictures that are not named", fix="name their folder: --images")
        return write_dataset(arguments.images, arguments.prompts, folder / "load-pictures.json", limit)
    coco = arguments.coco or arguments.out / "demo-scenes" / "held-out" / "annotations.json"
    if not coco.is_file():
        raise ConfigError(f"{coco} does not exist", fix="run make bench or make soak, or name pictures: --coco")
    return load_coco(coco, arguments.images or coco.parent, limit)


def _original(profile: Profile, dataset: "CocoDataset", arguments: argparse.Namespace) -> "Original | None":
    """What the original is run with: the demo's checkpoint, or random weights, for speed does not depend on them."""
    import safetensors.torch

    from gdino_build.accuracy.original import Original

    architecture = profile.architecture
    if architecture not in ARCHITECTURES.values():
        print(f"the original is left out: it has no configuration {architecture.name}")
        return None
    weights = profile.checkpoint
    if architecture != DEMO:
        weights = arguments.out / "random" / f"{architecture.name}.safetensors"
        weights.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(random_state_dict(architecture), weights)
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
