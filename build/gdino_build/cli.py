"""The command `gdino-build`: one sub-command a stage. The Makefile calls them in order."""

import argparse
import resource
import sys
import time

from gdino_build.commands import (
    audit,
    capacity,
    checkpoints,
    deploy,
    graphs,
    load,
    measure,
    memory,
    monitor,
    pipeline,
    plan,
    security,
)
from gdino_core.errors import GdinoError

_TIMED = ("export", "clean", "precision", "engine", "assemble", "verify")
_EXAMPLES = """examples:
  gdino-build export --profile demo-cpu
  gdino-build export --profile swint-cpu --random-weights
  gdino-build inspect --profile demo-cpu
  gdino-build sensitivity --profile demo-cpu --precision bf16
  gdino-build specialise --profile swint-cpu --size 800x1216
  gdino-build flops --profile swint-cpu --size 800x1216 --tokens 16
  gdino-build verify --profile demo-cpu
  gdino-build buckets --profile gpu-fp16 --coco instances_val2017.json --add 2
  gdino-build evaluate --profile swint-cpu-int8 --coco instances_val2017.json --images val2017
  gdino-build accuracy
  gdino-build bench-engine --profiles swint-cpu swint-cpu-bf16 swint-cpu-int8 --rounds 7
  gdino-build bench --profile demo-cpu --concurrency 1 4 16
  gdino-build soak --profile demo-cpu --minutes 10
  gdino-build capacity --profile demo-cpu --requests-per-day 1000000 --p95-ms 500
  gdino-build plan-memory --profile swint-cpu --memory-gib 8
  gdino-build engines --profile gpu-fp16 --sm 89
  gdino-build gpu-check --profiles gpu-fp16
  gdino-build doctor-checkpoint weights/mine.pth --config weights/cfg_odvg.py
  gdino-build weights swint
  gdino-build plan --answers cpu
  gdino-build deploy --config deploy.toml
  gdino-build certs out/certs --name detect.example.com
  gdino-build keys out/keys
  gdino-build audit
"""


def main() -> int:
    """Run one sub-command; errors that a user can mend are printed, with how to mend them."""
    arguments = _parser().parse_args()
    started = time.monotonic()
    try:
        arguments.run(arguments)
    except GdinoError as error:
        print(f"gdino-build {arguments.command}: {error}", file=sys.stderr)
        return 1
    if arguments.command in _TIMED:
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
    kinds = (
        checkpoints,
        pipeline,
        graphs,
        measure,
        load,
        capacity,
        memory,
        plan,
        deploy,
        monitor,
        security,
        audit,
    )
    for kind in kinds:
        kind.register(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
