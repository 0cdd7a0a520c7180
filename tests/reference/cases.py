"""The cases of the golden files: sizes, frames and captions that would each show another mistake."""

from gdino_build.golden import Case

_COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
_SHAPES = ("circle", "square", "triangle", "star")
_ALL_DEMO_LABELS = " . ".join(f"{colour} {shape}" for colour in _COLOURS for shape in _SHAPES)


def _as_it_is(name: str, seed: int, hw: tuple[int, int], padded_hw: tuple[int, int], caption: str) -> Case:
    return Case(name=name, seed=seed, picture_hw=hw, valid_hw=hw, padded_hw=padded_hw, caption=caption)


# Windows are 7 cells of 4, 8, 16 and 32 pixels: odd sizes end within a cell, within a window and within a shifted one.
_DEMO = (
    _as_it_is("landscape", 1, (160, 224), (160, 224), "red circle . blue star ."),
    _as_it_is("portrait", 2, (224, 160), (224, 160), "green triangle"),
    _as_it_is("wide", 3, (160, 288), (160, 288), _ALL_DEMO_LABELS),
    _as_it_is("square", 4, (160, 160), (160, 160), "orange square . is it round ?"),
    _as_it_is("small", 5, (96, 128), (96, 128), "star ."),
    _as_it_is("padded", 6, (151, 250), (192, 288), "purple star . yellow square ."),
    _as_it_is("padded_right", 6, (160, 201), (160, 288), "a blue thing . the purple one . something orange"),
    _as_it_is("padded_bottom", 6, (213, 160), (288, 160), "a blue thing . b . c . d ."),
    _as_it_is("lost_in_its_frame", 7, (133, 97), (256, 384), "red star . green circle ."),
    # 51 cells at stride 8: the first and the last are border tokens, and the caption lets them be proposed.
    _as_it_is("border", 4, (8, 408), (32, 416), "who"),
    _as_it_is("thin", 8, (33, 300), (64, 320), "yellow triangle ."),
    Case(
        name="photo",
        seed=9,
        picture_hw=(480, 640),
        valid_hw=(128, 170),
        padded_hw=(128, 192),
        caption="red circle . blue star . green square .",
    ),
    Case(
        name="phone_portrait",
        seed=10,
        picture_hw=(4032, 3024),
        valid_hw=(170, 128),
        padded_hw=(192, 128),
        caption="purple circle . orange star .",
    ),
)
_SWIN = (
    _as_it_is("landscape", 1, (256, 320), (256, 320), "cat . remote control ."),
    _as_it_is("padded", 6, (301, 365), (320, 384), "chair . wine glass ."),
    _as_it_is("800x1200", 11, (800, 1200), (800, 1216), "cat . remote control ."),
    _as_it_is("750x1333", 12, (750, 1333), (800, 1344), "a person on a bicycle"),
    Case(
        name="640x640",
        seed=13,
        picture_hw=(640, 640),
        valid_hw=(800, 800),
        padded_hw=(800, 832),
        caption="the left dog .",
    ),
    Case(
        name="phone_portrait",
        seed=14,
        picture_hw=(4032, 3024),
        valid_hw=(1066, 800),
        padded_hw=(1088, 800),
        caption="person . backpack . traffic light .",
    ),
)

CASES = {"demo": _DEMO, "swint": _SWIN, "swinb": _SWIN}
RESIZES = {"demo": (128, 228), "swint": (800, 1333), "swinb": (800, 1333)}  # short side, longest long side

# One picture, asked with prompts of different lengths: the original mixes up their masks when they form a batch.
BATCH_PICTURE = "demo/samples/2-wide.png"
BATCH_CAPTIONS = (
    "green square . orange star .",
    "green circle .",
    "orange square . green triangle . green circle . green square .",
)
