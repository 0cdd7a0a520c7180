"""Serve the demo repository, ask it for what is in the sample pictures, and show the answers.

    python demo/run.py --profile demo-cpu

Prints a table, writes annotated pictures and detections.json to out/demo/, and stops the server again.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from PIL import Image, ImageOps

from gdino_build.profile import load_profile
from gdino_build.serve import running_server
from gdino_build.server_ports import ServerPorts
from gdino_build.whole_file import write_json
from gdino_client import Client, Detections, draw_detections
from gdino_core.errors import GdinoError

SAMPLES = Path(__file__).parent / "samples"


def main() -> int:
    """Run the demo; returns an exit code."""
    parser = argparse.ArgumentParser(description="Serve the demo and query it.")
    parser.add_argument("--profile", default="demo-cpu", help="a built profile (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for results (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        profile = load_profile(arguments.profile).name
        run(profile, Path("out") / profile / "repository", arguments.out)
    except GdinoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def run(profile: str, repository: Path, out: Path) -> None:
    """Serve a repository, ask for every sample, and write what was found."""
    samples = json.loads((SAMPLES / "annotations.json").read_text(encoding="utf-8"))["images"]
    print(f"{'picture':<30}{'found':<20}{'score':>6}  box (x0, y0, x1, y1)")
    images, pictures = [], []
    ports = ServerPorts.given_or_unused(os.environ)
    with (
        running_server(repository, ports=ports, log_file=out / "server.log") as server,
        Client(server.grpc_url) as client,
    ):
        for sample in samples:
            path = SAMPLES / sample["file_name"]
            found = client.detect(path, sample["prompt"])
            print_rows(path.name, found)
            pictures.append(annotated_picture(path, found))
            pictures[-1].save(out / f"{path.stem}.png")
            images.append(found.to_dict(file=path.name))
    write_json(
        out / "detections.json",
        {"server": {"name": server.name, "version": server.version}, "profile": profile, "images": images},
    )
    overview(pictures).save(out / "overview.png")
    print(f"\n{len(images)} annotated pictures, overview.png and detections.json are in {out}/")


def print_rows(name: str, found: Detections) -> None:
    """Print what was found in one picture, a row each."""
    rows = [f"{item.label:<20}{item.score:>6.2f}  " + " ".join(f"{v:6.1f}" for v in item.box_xyxy) for item in found]
    for row in rows or ["nothing"]:
        print(f"{name:<30}{row}")
        name = ""


def annotated_picture(path: Path, found: Detections) -> Image.Image:
    """Draw what was found on the upright picture."""
    with Image.open(path) as image:
        return draw_detections(ImageOps.exif_transpose(image).convert("RGB"), found)


def overview(pictures: list[Image.Image], columns: int = 4, side: int = 360) -> Image.Image:
    """All pictures in a grid, each within a square of `side` pixels."""
    rows = -(-len(pictures) // columns)
    grid = Image.new("RGB", (columns * side, rows * side), "white")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        fitted = ImageOps.contain(picture, (side - 8, side - 8))
        left, top = column * side + (side - fitted.width) // 2, row * side + (side - fitted.height) // 2
        grid.paste(fitted, (left, top))
    return grid


if __name__ == "__main__":
    sys.exit(main())
