"""What postprocess has to know of a request, as preprocess hands it over."""

import json
from dataclasses import asdict, dataclass

from gdino_core.detections import DetectionOptions


@dataclass(frozen=True, kw_only=True)
class DetectionRequest:
    """A request without its picture.

    Attributes:
        texts: one caption, or labels.
        image_hw: height and width of the original picture, in pixels.
        options: what to keep of the detector's answer.
    """

    texts: tuple[str, ...]
    image_hw: tuple[int, int]
    options: DetectionOptions

    def to_bytes(self) -> bytes:
        """Write it as JSON, whose numbers come back as they were."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> "DetectionRequest":
        """Read what `to_bytes` wrote."""
        found = json.loads(content)
        height, width = found["image_hw"]
        return cls(texts=tuple(found["texts"]), image_hw=(height, width), options=DetectionOptions(**found["options"]))
