"""How the original resizes and normalises a picture."""

from groundingdino.datasets import transforms
from PIL import Image
from torch import Tensor

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # util/inference.py, load_image()


def resize(picture: Image.Image, short_side: int, long_side: int) -> Image.Image:
    """Resize with the original's transform: Pillow, bilinear."""
    resized: Image.Image = transforms.RandomResize([short_side], max_size=long_side)(picture, None)[0]
    return resized


def normalise(picture: Image.Image) -> Tensor:
    """Normalise an RGB picture: float32 [3, H, W]."""
    pixels: Tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)])(picture, None)[0]
    return pixels
