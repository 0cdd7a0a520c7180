"""What `gdino-build evaluate` and `gdino-build accuracy` do, and print."""

from collections.abc import Sequence
from pathlib import Path

from gdino_build.accuracy.comparison import Variant, compare_precisions
from gdino_build.accuracy.dataset import CocoDataset, load_coco
from gdino_build.accuracy.evaluation import evaluate_profile
from gdino_build.accuracy.original import Original
from gdino_build.accuracy.record import write_record
from gdino_build.accuracy.report import check_table, format_table, write_table
from gdino_build.model import DEMO
from gdino_build.profile import Profile
from gdino_core.errors import ConfigError

_DEMO_SCENES = Path("demo-scenes") / "held-out" / "annotations.json"  # below out/; demo/coco.py writes it


def run_evaluate(profile: Profile, out: Path, *, coco: Path | None, images: Path | None, limit: int | None) -> None:
    """Measure a built profile through its server, and write out/<profile>/accuracy.json.

    Args:
        profile: what was built.
        out: root of all outputs.
        coco: annotation file; None takes the demo's held-out scenes, for the demo alone.
        images: folder of the pictures; None takes that of the annotation file.
        limit: only the first so many pictures.

    Raises:
        GdinoError: what load_coco() and evaluate_profile() raise.
    """
    dataset = _dataset([profile], out, coco, images, limit)
    record = evaluate_profile(profile, out / profile.name, dataset)
    path = write_record(record, out / profile.name)
    print(f"{profile.name}, {record.describe()}")
    print(f"single requests: {record.latency_ms:.1f} ms, peak memory {(record.peak_bytes or 0) / 2**20:.0f} MiB")
    print(f"wrote {path}")


def run_accuracy(
    profiles: Sequence[Profile],
    out: Path,
    *,
    coco: Path | None,
    images: Path | None,
    limit: int | None,
    reference: Path | None,
) -> None:
    """Measure profiles of all precisions and the original; write out/accuracy.json, .md and .png, and judge the gates.

    Args:
        profiles: built ones, of one model and different precisions.
        out: root of all outputs.
        coco: as in run_evaluate().
        images: as in run_evaluate().
        limit: as in run_evaluate().
        reference: the original's environment; None leaves the original out.

    Raises:
        ParityError: a precision is over its gate.
        GdinoError: what load_coco() and compare_precisions() raise.
    """
    dataset = _dataset(profiles, out, coco, images, limit)
    variants = [
        Variant(profile=one, folder=out / one.name, graphs=out / one.name / "onnx" / one.precision) for one in profiles
    ]
    original = _original(profiles[0], out, images or dataset.file.parent, reference) if reference else None
    table = compare_precisions(variants, original, dataset)
    paths = write_table(table, out)
    print(format_table(table))
    print(f"wrote {', '.join(map(str, paths))}")
    check_table(table)


def _original(profile: Profile, out: Path, images: Path, reference: Path) -> Original:
    if profile.checkpoint.suffix != ".safetensors":
        raise ConfigError(
            f"the original is run on .safetensors, the checkpoint is {profile.checkpoint}",
            fix="leave the original out: --no-original",
        )
    return Original(
        root=Path.cwd(),
        environment=reference,
        model=profile.architecture.name.partition("-")[0],
        weights=profile.checkpoint,
        images=images,
        out=out / f"original-{profile.architecture.name}",
    )


def _dataset(
    profiles: Sequence[Profile], out: Path, coco: Path | None, images: Path | None, limit: int | None
) -> CocoDataset:
    if coco is None:
        if any(profile.architecture != DEMO for profile in profiles):
            raise ConfigError(
                "only the demo has pictures of its own to be evaluated on",
                fix="name a data set in COCO's format: --coco annotations.json --images FOLDER",
            )
        coco, images = out / _DEMO_SCENES, None
        if not coco.is_file():
            raise ConfigError(
                f"the demo's held-out scenes {coco} are not there",
                fix=f"write them: python demo/coco.py --stream held-out --out {coco.parent}",
            )
    return load_coco(coco, images or coco.parent, limit)
