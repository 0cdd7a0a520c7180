"""What was counted of the work, beside what the original does at the same size: a table to read, and JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from gdino_build.flops import Work, total
from gdino_build.whole_file import write_json
from gdino_build.work_stages import STAGES
from gdino_core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class OriginalWork:
    """What tests/reference/make_work_goldens.py counted of the original, by stage.

    Attributes:
        sizes: batch, height, width and tokens.
        flops: of products and convolutions.
        written_bytes: of all tensors that its operators write, in PyTorch.
        module_written_bytes: the same of our module in PyTorch.
    """

    sizes: Mapping[str, int]
    flops: Mapping[str, int]
    written_bytes: Mapping[str, int]
    module_written_bytes: Mapping[str, int]


def read_original_work(path: Path) -> OriginalWork:
    """Read a file that tests/reference/make_work_goldens.py wrote.

    Raises:
        ConfigError: it is missing or not such a file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return OriginalWork(
            sizes={name: content[name] for name in ("batch", "height", "width", "tokens")},
            flops={stage: one["flops"] for stage, one in content["original"].items()},
            written_bytes={stage: one["written_bytes"] for stage, one in content["original"].items()},
            module_written_bytes={stage: one["written_bytes"] for stage, one in content["module"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", fix="make goldens writes it") from error


def format_work(works: Mapping[str, Work], original: OriginalWork | None) -> str:
    """The work of each stage and of all as a table: GFLOP and MiB; of the original too, where it is known."""
    head = f"{'':<33}{'GFLOP':>9}{'sampling':>9}{'weights':>9}{'written':>9}{'unfused':>9}"
    if original:
        head += f"{'original: GFLOP':>18}{'PyTorch':>9}{'ours':>9}"
    lines = [head]
    stages = [stage for stage, _ in STAGES]
    lines += [_line(stage, works[stage], original, [stage]) for stage in stages if stage in works]
    return "\n".join([*lines, _line("all", total(works.values()), original, stages)])


def _line(name: str, work: Work, original: OriginalWork | None, stages: list[str]) -> str:
    line = f"{name:<33}{2 * work.products / 1e9:>9.2f}{2 * work.samples / 1e9:>9.2f}"
    line += "".join(f"{count / 2**20:>9.1f}" for count in (work.weight_bytes, work.fused_bytes, work.unfused_bytes))
    if original:
        flops, written, module = (
            sum(numbers.get(stage, 0) for stage in stages)
            for numbers in (original.flops, original.written_bytes, original.module_written_bytes)
        )
        line += f"{flops / 1e9:>18.2f}{written / 2**20:>9.1f}{module / 2**20:>9.1f}"
    return line


def write_work(works: Mapping[str, Work], sizes: Mapping[str, int], original: OriginalWork | None, path: Path) -> None:
    """Write all numbers as JSON; the file appears only when it is whole."""
    content = {
        "sizes": dict(sizes),
        "stages": {stage: asdict(work) for stage, work in works.items()},
        "total": asdict(total(works.values())),
        "original": None if original is None else asdict(original),
    }
    write_json(path, content)
