"""Blur parts of a picture, such as faces.

The rule begins as that of ImageNet's face obfuscation (Yang et al., 2022), which img2dataset follows:
each box grows by a tenth of its longer side all round, and a Gaussian of a tenth of the longest
box's softens both the picture and the mask through which it shows. By that rule the mask of a small
or thin box beside a long one is softened away; here the boxes themselves show nothing of what was
sharp. The Gaussian has its full width; img2dataset 1.47 hands it on in a way that leaves about half.
"""

from math import ceil, floor

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from pipeline.pictures.orientation import Boxes, Pixels

SHARE = 0.1
"""Of a box's longer side: by which it grows, and the Gaussian's standard deviation."""


def blur(rgb: Pixels, boxes: Boxes) -> Pixels:
    """Return the picture with what is in the boxes blurred."""
    height, width = rgb.shape[:2]
    grown, inside = np.zeros((2, height, width), np.uint8)
    longest = 0
    for box in boxes:
        left, right = floor(box[0] * width), ceil(box[2] * width)
        top, bottom = floor(box[1] * height), ceil(box[3] * height)
        side = max(right - left, bottom - top, 1)
        longest = max(longest, side)
        margin = max(1, round(SHARE * side))
        inside[top:bottom, left:right] = 255
        grown[max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin] = 255
    gaussian = ImageFilter.GaussianBlur(SHARE * longest)
    sharp = Image.fromarray(np.ascontiguousarray(rgb))
    mask = ImageChops.lighter(Image.fromarray(grown).filter(gaussian), Image.fromarray(inside))
    return np.asarray(Image.composite(sharp.filter(gaussian), sharp, mask))
