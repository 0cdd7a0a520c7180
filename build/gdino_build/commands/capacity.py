"""How many servers a load takes."""

import argparse

from gdino_build.commands.stage import Commands, above_zero, add_stage, folder_of
from gdino_build.profile import Profile


def register(commands: Commands) -> None:
    """Add this command."""
    from gdino_build.capacity.demand import PEAK_TO_MEAN, UTILISATION

    text = "tell from what bench measured what a replica bears, where it stops scaling, and how many a load takes"
    capacity = add_stage(commands, "capacity", _capacity, text)
    load = capacity.add_mutually_exclusive_group()
    load.add_argument("--requests-per-day", type=above_zero, help="the load, all replicas together")
    load.add_argument("--per-second", type=above_zero, help="the load at its peak, all replicas together")
    capacity.add_argument("--p95-ms", type=above_zero, help="time that 95 of 100 answers must keep to")
    capacity.add_argument(
        "--peak-to-mean",
        type=above_zero,
        default=PEAK_TO_MEAN,
        help="requests in the busiest time over the day's mean (default: %(default)g)",
    )
    capacity.add_argument(
        "--utilisation",
        type=above_zero,
        default=UTILISATION,
        help="part of what a replica bears that it is given at the peak (default: %(default)g)",
    )


def _capacity(profile: Profile, arguments: argparse.Namespace) -> None:
    from gdino_build.capacity.demand import Demand, plan_capacity
    from gdino_build.capacity.levels import BENCH_FILE_NAME, read_bench
    from gdino_build.capacity.report import format_capacity, write_capacity

    bounds = {
        "peak_to_mean": arguments.peak_to_mean,
        "p95_ms": arguments.p95_ms,
        "utilisation": arguments.utilisation,
    }
    if arguments.requests_per_day:
        demand = Demand.of_a_day(arguments.requests_per_day, **bounds)
    else:
        demand = Demand(peak_per_s=arguments.per_second, **bounds)
    folder = folder_of(profile, arguments)
    capacity = plan_capacity(read_bench(folder / BENCH_FILE_NAME), demand)
    print(format_capacity(capacity), end="")
    print(f"wrote {', '.join(map(str, write_capacity(capacity, folder)))}")
