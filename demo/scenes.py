"""The demo world: scenes of coloured shapes, drawn at any size, with exact boxes.

A scene is a description without pixels. Its unit of length is the short side of the picture, so it can be
drawn at every size, and its boxes follow from its geometry instead of from a drawing.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 215, 50),
    "purple": (150, 50, 190),
    "orange": (240, 140, 30),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star")
LABELS: tuple[str, ...] = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)

COLOUR_JITTER = 18  # a channel, either way
ACROSS_RANGE = (0.14, 0.48)
ASPECT_RANGE = (3 / 4, 16 / 9)  # width / height
MAX_OBJECTS = 6
# A small box inside a large one has a small IoU, so overlap is measured against the smaller of the two.
MAX_OVERLAP_OF_SMALLER = 0.12
# 0.38 is the pentagram; drawn stars are often fatter.
STAR_WAIST_RANGE = (0.38, 0.5)
MID_TONE_RANGE = (85.0, 170.0)
TINT = 16.0  # how far a background's channels lie from its grey
SUPERSAMPLING = 4
PLACING_ATTEMPTS = 40

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One shape. Lengths are in short sides of the picture.

    Attributes:
        colour: a key of COLOURS.
        shape: an element of SHAPES.
        rgb: the colour as drawn, each channel within COLOUR_JITTER of the colour's own.
        centre_xy: centre of the circumscribed circle.
        across: diameter of the circumscribed circle; no rotation makes the shape larger than that.
        rotation: radians, in [0, 2 pi).
        star_waist: inner radius of a star as a fraction of its outer radius; other shapes ignore it.
    """

    colour: str
    shape: str
    rgb: tuple[int, int, int]
    centre_xy: tuple[float, float]
    across: float
    rotation: float
    star_waist: float

    @property
    def label(self) -> str:
        """Colour and shape, one of LABELS."""
        return f"{self.colour} {self.shape}"

    def outline(self) -> FloatArray:
        """Corners of the shape, float64 [n, 2] of x, y in short sides; a circle has none, [0, 2]."""
        corners = {"circle": 0, "square": 4, "triangle": 3, "star": 10}[self.shape]
        angles = self.rotation + np.arange(corners) * (2 * math.pi / max(corners, 1))
        radii = np.full(corners, self.across / 2)
        if self.shape == "star":
            radii[1::2] *= self.star_waist
        directions = np.stack((np.cos(angles), np.sin(angles)), axis=1)
        outline: FloatArray = np.asarray(self.centre_xy) + radii[:, None] * directions
        return outline

    def box(self) -> tuple[float, float, float, float]:
        """Tight box x0, y0, x1, y1 in short sides."""
        if self.shape == "circle":
            (x, y), radius = self.centre_xy, self.across / 2
            return (x - radius, y - radius, x + radius, y + radius)
        outline = self.outline()
        (x0, y0), (x1, y1) = outline.min(axis=0), outline.max(axis=0)
        return (float(x0), float(y0), float(x1), float(y1))


@dataclass(frozen=True, kw_only=True)
class Background:
    """A linear gradient between two mid-tones, with noise if `noise` > 0.

    Attributes:
        start_rgb: colour at one end, each channel in [0, 255].
        end_rgb: colour at the other end.
        direction: radians, where the gradient points.
        noise: standard deviation of the noise, in grey levels; half of it is blotches, half is grain.
        seed: of the noise.
    """

    start_rgb: tuple[float, float, float]
    end_rgb: tuple[float, float, float]
    direction: float
    noise: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A background and the objects on it, in drawing order.

    Attributes:
        aspect: width / height of the picture.
        background: what lies behind.
        objects: one to MAX_OBJECTS, all inside the picture.
    """

    aspect: float
    background: Background
    objects: tuple[SceneObject, ...]

    @property
    def extent_xy(self) -> tuple[float, float]:
        """Width and height of the picture in short sides."""
        return (max(self.aspect, 1.0), max(1 / self.aspect, 1.0))

    @property
    def labels(self) -> tuple[str, ...]:
        """Label of each object, in the order of `objects`."""
        return tuple(thing.label for thing in self.objects)


def random_scene(rng: np.random.Generator, aspect: float | None = None) -> Scene:
    """Draw a scene: 1 to MAX_OBJECTS objects that hardly overlap, entirely inside the picture.

    Args:
        rng: the only source of chance.
        aspect: width / height; by default any in ASPECT_RANGE, uniform in its logarithm.

    Returns:
        The scene; the same state of `rng` gives the same one.
    """
    if aspect is None:
        aspect = float(np.exp(rng.uniform(*np.log(ASPECT_RANGE))))
    extent_xy = (max(aspect, 1.0), max(1 / aspect, 1.0))
    objects: list[SceneObject] = []
    for _ in range(int(rng.integers(1, MAX_OBJECTS + 1))):
        candidate = _free_place(rng, extent_xy, objects)
        if candidate is not None:
            objects.append(candidate)
    return Scene(aspect=aspect, background=_random_background(rng), objects=tuple(objects))


def boxes_xyxy(scene: Scene, height: int, width: int) -> NDArray[np.float32]:
    """Tight boxes of a scene's objects in a picture of `height` x `width`, from the geometry.

    Args:
        scene: the scene.
        height: of the picture, in pixels.
        width: of the picture, in pixels.

    Returns:
        float32 [n, 4], x0, y0, x1, y1 in pixels, in the order of `scene.objects`; the picture's corners are
        (0, 0) and (width, height).
    """
    scale_xy = _scale_xy(scene, height, width)
    boxes = np.array([thing.box() for thing in scene.objects]).reshape(-1, 4)
    return (boxes * np.tile(scale_xy, 2)).astype(np.float32)


def render(scene: Scene, height: int, width: int) -> NDArray[np.uint8]:
    """Draw a scene with smooth edges.

    Args:
        scene: the scene.
        height: of the picture, in pixels.
        width: of the picture, in pixels; a ratio other than `scene.aspect` stretches the scene.

    Returns:
        HWC uint8 in [0, 255], RGB.
    """
    canvas = Image.fromarray(_draw_background(scene.background, height, width))
    scale_xy = _scale_xy(scene, height, width)
    for thing, box in zip(scene.objects, boxes_xyxy(scene, height, width), strict=True):
        left, top = math.floor(box[0]), math.floor(box[1])
        size = (math.ceil(box[2]) - left, math.ceil(box[3]) - top)
        origin = np.array((left, top))
        mask = Image.new("L", (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING))
        draw = ImageDraw.Draw(mask)
        # Pillow puts whole numbers at the centres of pixels, geometry puts them at the edges: hence the half.
        if thing.shape == "circle":
            corners = (np.reshape(box, (2, 2)) - origin) * SUPERSAMPLING - 0.5
            draw.ellipse([float(value) for value in corners.ravel()], fill=255)
        else:
            corners = (thing.outline() * scale_xy - origin) * SUPERSAMPLING - 0.5
            draw.polygon([float(value) for value in corners.ravel()], fill=255)
        canvas.paste(thing.rgb, (left, top), mask.reduce(SUPERSAMPLING))
    return np.array(canvas)


def _scale_xy(scene: Scene, height: int, width: int) -> FloatArray:
    extent_x, extent_y = scene.extent_xy
    return np.array((width / extent_x, height / extent_y))


def _free_place(
    rng: np.random.Generator, extent_xy: tuple[float, float], placed: list[SceneObject]
) -> SceneObject | None:
    """Place one random object clear of those placed before; None when the picture seems full."""
    colour = list(COLOURS)[int(rng.integers(len(COLOURS)))]
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    jitter = rng.integers(-COLOUR_JITTER, COLOUR_JITTER + 1, size=3)
    red, green, blue = (int(base + shift) for base, shift in zip(COLOURS[colour], jitter, strict=True))
    for _ in range(PLACING_ATTEMPTS):
        across = float(rng.uniform(*ACROSS_RANGE))
        centre_xy = tuple(float(rng.uniform(across / 2, extent - across / 2)) for extent in extent_xy)
        candidate = SceneObject(
            colour=colour,
            shape=shape,
            rgb=(red, green, blue),
            centre_xy=(centre_xy[0], centre_xy[1]),
            across=across,
            rotation=float(rng.uniform(0, 2 * math.pi)),
            star_waist=float(rng.uniform(*STAR_WAIST_RANGE)),
        )
        if all(_overlap_of_smaller(candidate.box(), other.box()) <= MAX_OVERLAP_OF_SMALLER for other in placed):
            return candidate
    return None


def _overlap_of_smaller(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """Area two boxes share, as a fraction of the smaller box."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / smaller


def _random_background(rng: np.random.Generator) -> Background:
    """Draw two low-saturation mid-tones; every object's colour is saturated, so none is lost on them."""
    ends = rng.uniform(*MID_TONE_RANGE, size=(2, 1)) + rng.uniform(-TINT, TINT, size=(2, 3))
    start, end = ([float(channel) for channel in rgb] for rgb in ends)
    return Background(
        start_rgb=(start[0], start[1], start[2]),
        end_rgb=(end[0], end[1], end[2]),
        direction=float(rng.uniform(0, 2 * math.pi)),
        noise=float(rng.uniform(3.0, 16.0)) if rng.random() < 0.5 else 0.0,
        seed=int(rng.integers(2**31)),
    )


def _draw_background(background: Background, height: int, width: int) -> NDArray[np.uint8]:
    """HWC uint8 gradient, with blotches and grain on top when it is a noisy one."""
    along_y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None] * math.sin(background.direction)
    along_x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :] * math.cos(background.direction)
    position = (along_y + along_x) / math.sqrt(2) + 0.5  # [height,width] in [0,1]
    start, end = (np.array(rgb, dtype=np.float32) for rgb in (background.start_rgb, background.end_rgb))
    pixels = start + position[:, :, None] * (end - start)  # [height,width,3]
    if background.noise > 0:
        rng = np.random.default_rng(background.seed)
        coarse = Image.fromarray(rng.standard_normal((9, 9), dtype=np.float32))
        blotches = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))
        grain = rng.standard_normal((height, width, 1), dtype=np.float32)
        pixels += background.noise * math.sqrt(0.5) * (blotches[:, :, None] + grain)
    drawn: NDArray[np.uint8] = np.clip(pixels + 0.5, 0, 255).astype(np.uint8)
    return drawn
