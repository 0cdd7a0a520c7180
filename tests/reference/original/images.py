"""How the original resizes, normalises and pads a picture."""

import torch
from groundingdino.datasets import transforms
from groundingdino.util.misc import NestedTensor
from PIL import Image

from gdino_build.pictures import Picture

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # util/inference.py, load_image()


def resize(picture: Image.Image, short_side: int, long_side: int) -> Image.Image:
    """Resize with the original's transform: Pillow, bilinear."""
    resized: Image.Image = transforms.RandomResize([short_side], max_size=long_side)(picture, None)[0]
    return resized


def normalise_padded(padded: Picture, valid_hw: tuple[int, int]) -> NestedTensor:
    """Normalise a picture and mask its padding.

    Args:
        padded: uint8 [H, W, 3], RGB.
        valid_hw: height and width of the real picture at the top left.

    Returns:
        float32 [1, 3, H, W], zero where padded, and the mask bool [1, H, W], True there.
    """
    height, width = valid_hw
    normalise = transforms.Compose([transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)])
    pixels, _ = normalise(Image.fromarray(padded[:height, :width]), None)
    tensors = torch.zeros(1, 3, *padded.shape[:2])
    tensors[0, :, :height, :width] = pixels
    mask = torch.ones(1, *padded.shape[:2], dtype=torch.bool)
    mask[0, :height, :width] = False
    return NestedTensor(tensors, mask)
