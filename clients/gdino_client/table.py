"""Write detections and a server's status as tables of plain text."""

from collections.abc import Sequence

from gdino_client.detections import Detections
from gdino_client.status import ServerStatus


def detections_table(file: str, detections: Detections) -> str:
    """Return a headline for one picture and a line for each detection."""
    height, width = detections.image_hw
    count = len(detections)
    headline = f"{file}  {width}x{height}  {count} detection{'' if count == 1 else 's'}"
    if not count:
        return headline
    rows = [
        (found.label or "(no phrase)", f"{found.score:.3f}", *(f"{side:.1f}" for side in found.box_xyxy))
        for found in detections
    ]
    return f"{headline}\n{_table(('label', 'score', 'x0', 'y0', 'x1', 'y1'), rows, left=1)}"


def status_table(url: str, status: ServerStatus) -> str:
    """Return a headline for the server and a line for each version of each model."""
    headline = f"{status.name} {status.version} at {url} is {'ready' if status.ready else 'not ready'}"
    if not status.models:
        return f"{headline}\n  its repository has no models"
    rows = [
        (
            model.name,
            model.version or "-",
            model.state or "not loaded",
            model.reason.strip().partition("\n")[0],
        )
        for model in status.models
    ]
    return f"{headline}\n{_table(('model', 'version', 'state', ''), rows, left=4)}"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, left: int) -> str:
    """Align columns, the first `left` of them to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join(lines)
