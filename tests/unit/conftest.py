"""Image files that the tests write themselves."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def write_image():
    """Writes an (H, W) size or an (H, W, 3) array as an image file; ``exif`` is an orientation."""

    def write(path, pixels, exif=None):
        if isinstance(pixels, tuple):
            h, w = pixels
            ramp = np.arange(h * w * 3, dtype=np.uint32).reshape(h, w, 3) * 7 % 251
            pixels = ramp.astype(np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels)
        tags = Image.Exif()
        if exif is not None:
            tags[0x0112] = exif
        image.save(path, exif=tags)
        return path

    return write


@pytest.fixture
def write_mask():
    """Writes numbers as a mask PNG of mode L, P, 1, RGB ..."""

    def write(path, labels, mode="L"):
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.asarray(labels, dtype=np.uint8))
        if mode == "P":
            image.putpalette([v for i in range(256) for v in (255 - i, i, 7 * i % 256)])
        elif mode != "L":
            image = image.convert(mode)
        image.save(path)
        return path

    return write
