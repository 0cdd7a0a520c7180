"""The cases of the golden files: sizes, paddings and captions that would each show another mistake."""

from gdino_build.golden import Case

_COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
_SHAPES = ("circle", "square", "triangle", "star")
_ALL_DEMO_LABELS = " . ".join(f"{colour} {shape}" for colour in _COLOURS for shape in _SHAPES)

# Tokens at the border and in the padding share one score and one box. Seeds and captions of the padded cases
# were chosen so that, with random weights, these do not take all the proposals.
_DEMO = (
    Case(
        name="landscape",
        seed=1,
        padded_hw=(160, 224),
        valid_hw=(160, 224),
        caption="red circle . blue star .",
    ),
    Case(name="portrait", seed=2, padded_hw=(224, 160), valid_hw=(224, 160), caption="green triangle"),
    Case(name="wide", seed=3, padded_hw=(160, 288), valid_hw=(160, 288), caption=_ALL_DEMO_LABELS),
    Case(
        name="square",
        seed=4,
        padded_hw=(160, 160),
        valid_hw=(160, 160),
        caption="orange square . is it round ?",
    ),
    Case(name="small", seed=5, padded_hw=(96, 128), valid_hw=(96, 128), caption="star ."),
    Case(
        name="padded",
        seed=6,
        padded_hw=(192, 288),
        valid_hw=(151, 250),
        caption="purple star . yellow square .",
    ),
    Case(
        name="padded_right",
        seed=6,
        padded_hw=(160, 288),
        valid_hw=(160, 201),
        caption="a blue thing . the purple one . something orange",
    ),
    Case(
        name="padded_bottom",
        seed=6,
        padded_hw=(288, 160),
        valid_hw=(213, 160),
        caption="a blue thing . b . c . d .",
    ),
)
# Captions are short: the file holds the logits of all 900 queries.
_FULL_SIZE = (
    Case(name="landscape", seed=1, padded_hw=(256, 320), valid_hw=(256, 320), caption="cat . remote control ."),
    Case(name="portrait", seed=2, padded_hw=(320, 256), valid_hw=(320, 256), caption="a person on a bicycle"),
    Case(name="large", seed=6, padded_hw=(480, 640), valid_hw=(480, 640), caption="the left dog ."),
    Case(name="padded", seed=6, padded_hw=(320, 384), valid_hw=(301, 365), caption="chair . wine glass ."),
)

CASES = {"demo": _DEMO, "swint": _FULL_SIZE, "swinb": _FULL_SIZE}
