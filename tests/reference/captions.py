"""The captions that the original and we are asked about, by what each kind would catch; add to a kind."""

import json
from dataclasses import dataclass
from pathlib import Path

_FILE = Path(__file__).with_name("captions.json")


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A caption; `written` is how it stands in JSON: the text, or [text, how many times it is repeated]."""

    kind: str
    written: str | list[str | int]

    @property
    def text(self) -> str:
        """The caption itself."""
        if isinstance(self.written, str):
            return self.written
        text, times = self.written
        return str(text) * int(times)


def read_captions() -> list[Caption]:
    """Read all captions, kind after kind."""
    kinds = json.loads(_FILE.read_text(encoding="utf-8"))
    return [Caption(kind=kind, written=written) for kind, captions in kinds.items() for written in captions]
