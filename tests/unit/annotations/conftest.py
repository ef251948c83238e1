"""Small files that the tests write themselves."""

import json
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewseg.annotations.values import Prediction


@pytest.fixture
def write_json():
    def write(path, value):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
        return path

    return write


@pytest.fixture(scope="session")
def brush():
    """label-studio-converter's own code, without the minute that importing the whole package takes."""
    package = find_spec("label_studio_converter")
    if package is None:
        pytest.skip("label-studio-converter is not installed")
    path = Path(package.submodule_search_locations[0]) / "brush.py"
    spec = spec_from_file_location("label_studio_brush", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blobs(seed, size, level=0.5):
    """A mask (H, W) uint8 of smooth shapes with holes, some of one pixel."""
    rng = np.random.default_rng(seed)
    rough = rng.random((size[0] // 6 + 2, size[1] // 6 + 2))
    large = np.asarray(Image.fromarray(rough.astype(np.float32)).resize(size[::-1], Image.Resampling.BICUBIC))
    mask = (large > level).astype(np.uint8)
    mask[rng.integers(size[0], size=3), rng.integers(size[1], size=3)] ^= 1
    return mask


MASKS = {
    "empty": np.zeros((5, 7), np.uint8),
    "full": np.ones((5, 7), np.uint8),
    "first pixel": np.eye(1, 35, 0, dtype=np.uint8).reshape(5, 7),
    "last pixel": np.eye(1, 35, 34, dtype=np.uint8).reshape(5, 7),
    "one pixel image": np.ones((1, 1), np.uint8),
    "checkerboard": (np.indices((9, 8)).sum(axis=0) % 2).astype(np.uint8),
    "noise": np.random.default_rng(0).integers(0, 2, (31, 47)).astype(np.uint8),
    "blobs": blobs(1, (60, 83)),
    "wide": blobs(2, (3, 400)),
    # A brush's longest run is 65536 values of 4 a pixel: here 2 exactly, and one and a rest.
    "long runs": np.pad(np.ones((129, 128), np.uint8), ((256, 0), (0, 0))),
}


@pytest.fixture(params=MASKS.values(), ids=MASKS.keys())
def mask(request):
    return request.param


@pytest.fixture
def predict():
    """Makes a prediction of two classes with every kind of pixel."""

    def make(name="a.png", seed=0, size=(40, 50)):
        labels = blobs(seed, size)
        labels[blobs(seed + 100, size, 0.6) == 1] = 2
        labels[:2, :3] = 255
        rng = np.random.default_rng(seed)
        probability = rng.random((2, *size)).astype(np.float32)
        scores = (round(float(rng.random()), 6), round(float(rng.random()), 6))
        return Prediction(
            name=name,
            labels=labels,
            classes=("rust", "crack é"),
            scores=scores,
            probability=probability,
            facts={"quality": 0.5},
        )

    return make
