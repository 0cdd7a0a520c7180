"""Draw detections on a picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from PIL import Image, ImageDraw, ImageFont

from gdino_client.detections import Detection, Detections
from gdino_client.picture import upright
from gdino_core.errors import ImageError

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Box = tuple[int, int, int, int]  # x0, y0, x1, y1, all inside

# Neighbours differ in hue and in lightness, so that labels of one prompt are told apart.
PALETTE: Final[tuple[Colour, ...]] = (
    (255, 56, 92),
    (0, 168, 232),
    (255, 200, 0),
    (120, 60, 220),
    (0, 200, 120),
    (255, 120, 20),
    (20, 70, 200),
    (190, 240, 60),
    (240, 90, 220),
    (140, 160, 255),
    (170, 40, 20),
    (120, 220, 240),
)
_DARK: Final[Colour] = (16, 18, 24)
_LIGHT: Final[Colour] = (255, 255, 255)
# Labels beyond the palette take it again, darker, then lighter: 36 colours.
_SHADES: Final[tuple[tuple[Colour, float], ...]] = ((_DARK, 0.0), (_DARK, 0.45), (_LIGHT, 0.55))
_SMALLEST_FONT: Final = 8


@dataclass(frozen=True, kw_only=True)
class _Style:
    line: int  # pixels of a box's line
    font_size: int
    padding: int  # pixels around a tag's text

    @classmethod
    def for_size(cls, size: tuple[int, int]) -> "_Style":
        # By the mean side: a panorama's short side alone would make the text too small to read.
        side = (size[0] * size[1]) ** 0.5
        font_size = max(11, round(side / 36))
        return cls(line=max(2, round(side / 220)), font_size=font_size, padding=max(2, font_size // 4))


def draw_detections(image: Image.Image, detections: Detections) -> Image.Image:
    """Return an RGB copy of a picture with the boxes, labels and scores of its detections.

    A label has the same colour in every picture that was asked with the same prompt. Everything is inside the
    picture; where a tag does not fit, its text is made smaller, then shorter. The font is Pillow's own, which
    has Latin letters only: others show as boxes.

    Args:
        image: the picture that was sent; its EXIF orientation is applied.
        detections: what was found in it.

    Raises:
        ImageError: the picture is damaged, or has another size than the detections are for.
    """
    canvas = upright(image)
    if (canvas.height, canvas.width) != detections.image_hw:
        height, width = detections.image_hw
        raise ImageError(
            f"the picture has {canvas.width}x{canvas.height} pixels, the detections are for {width}x{height}",
            fix="draw on the picture that was sent",
        )
    draw = ImageDraw.Draw(canvas)
    style = _Style.for_size(canvas.size)
    found = [(detection, colour_of(detection, detections.prompt)) for detection in detections]
    for detection, colour in reversed(found):  # the best is drawn last, over the others
        _draw_box(draw, _clip(detection, canvas.size), colour, style)
    taken: list[Box] = []
    for detection, colour in found:  # the best chooses its tag's place first
        _draw_tag(draw, detection, colour, style, taken)
    return canvas


def colour_of(detection: Detection, prompt: Sequence[str]) -> Colour:
    """Return a detection's colour: by its label's place in the prompt, or for other phrases by their text."""
    place = detection.label_index
    if place < 0:
        known = [label.lower() for label in prompt]
        phrase = detection.label.lower()
        place = known.index(phrase) if phrase in known else crc32(phrase.encode("utf-8"))
    shade, hue = divmod(place, len(PALETTE))
    towards, by = _SHADES[shade % len(_SHADES)]
    return _mix(PALETTE[hue], towards, by)


def _clip(detection: Detection, size: tuple[int, int]) -> Box:
    right, bottom = size[0] - 1, size[1] - 1
    x0, y0, x1, y1 = detection.box_xyxy
    left, top = min(max(round(x0), 0), right), min(max(round(y0), 0), bottom)
    # A box's edge lies between pixels: its last pixel is the one before.
    return left, top, min(max(round(x1) - 1, left), right), min(max(round(y1) - 1, top), bottom)


def _draw_box(draw: ImageDraw.ImageDraw, box: Box, colour: Colour, style: _Style) -> None:
    # A thin dark rim on both sides of the line keeps it visible on a ground of its own colour.
    rim = max(1, style.line // 3)
    x0, y0, x1, y1 = box
    draw.rectangle((x0 - rim, y0 - rim, x1 + rim, y1 + rim), outline=_DARK, width=style.line + 2 * rim)
    draw.rectangle(box, outline=colour, width=style.line)


def _draw_tag(draw: ImageDraw.ImageDraw, detection: Detection, colour: Colour, style: _Style, taken: list[Box]) -> None:
    width, height = draw.im.size
    text, font = _fit(f"{detection.label} {detection.score:.2f}".strip(), style, width)
    if not text:
        return
    left, _, right, _ = font.getbbox(text)
    # As high as the tallest and deepest letters, so that all tags have the same height.
    _, tallest, _, deepest = font.getbbox("Ágjy")
    tag_wh = round(right - left) + 2 * style.padding, round(deepest - tallest) + 2 * style.padding
    if tag_wh[1] > height:
        return
    tag = _place(tag_wh, _clip(detection, (width, height)), (width, height), taken)
    taken.append(tag)
    draw.rectangle(tag, fill=colour)
    origin = (tag[0] + style.padding - left, tag[1] + style.padding - tallest)
    draw.text(origin, text, font=font, fill=_readable_on(colour))


def _fit(text: str, style: _Style, width: int) -> tuple[str, Font]:
    room = width - 2 * style.padding
    size = style.font_size
    font = ImageFont.load_default(size)
    while font.getlength(text) > room and size > _SMALLEST_FONT:
        size -= 1
        font = ImageFont.load_default(size)
    if font.getlength(text) <= room:
        return text, font
    label, _, score = text.rpartition(" ")
    while label and font.getlength(f"{label}… {score}") > room:
        label = label[:-1]
    shortened = f"{label}… {score}" if label else score
    return (shortened if font.getlength(shortened) <= room else ""), font


def _place(tag_wh: tuple[int, int], box: Box, size: tuple[int, int], taken: Sequence[Box]) -> Box:
    candidates = [_inside(left, top, tag_wh, size) for left, top in _corners(tag_wh, box)]
    return min(candidates, key=lambda tag: sum(_overlap(tag, other) for other in taken))  # the first of equals


def _corners(tag_wh: tuple[int, int], box: Box) -> Iterator[tuple[int, int]]:
    """Give the top left corners that a tag may have, the best-looking first."""
    x0, y0, x1, y1 = box
    width, height = tag_wh
    if y0 - height >= 0:
        yield x0, y0 - height  # on top of the box, flush left
    yield x0, y0  # inside, top left
    yield x0, y1 + 1  # under the box
    yield x1 + 1 - width, y0 - height
    yield x1 + 1 - width, y0
    yield x1 + 1 - width, y1 + 1
    yield x0, y1 + 1 - height  # inside, bottom left


def _inside(left: int, top: int, tag_wh: tuple[int, int], size: tuple[int, int]) -> Box:
    left = min(max(left, 0), size[0] - tag_wh[0])
    top = min(max(top, 0), size[1] - tag_wh[1])
    return left, top, left + tag_wh[0] - 1, top + tag_wh[1] - 1


def _overlap(first: Box, second: Box) -> int:
    width = min(first[2], second[2]) - max(first[0], second[0]) + 1
    height = min(first[3], second[3]) - max(first[1], second[1]) + 1
    return max(width, 0) * max(height, 0)


def _mix(colour: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def _readable_on(colour: Colour) -> Colour:
    red, green, blue = colour
    # Rec. 601 luma; above it black has the better contrast.
    return _DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else _LIGHT
