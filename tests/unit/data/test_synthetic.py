"""The rendered set: repeatable, balanced, varied; classes differ in outline and pattern, not in colour."""

import numpy as np
import pytest
import torch

from fewseg.data.index import build_index
from fewseg.data.source import Source
from fewseg.data.synthetic import (
    CLASS_PATTERNS,
    FAMILIES,
    SYNTHETIC_CLASSES,
    Outline,
    Placement,
    Stream,
    SyntheticSource,
    _bounds,
    _coverage,
    synthetic_5i,
)
from fewseg.types import IGNORE

SIZE = 65


@pytest.fixture(scope="module")
def source() -> SyntheticSource:
    return SyntheticSource(images=400, size=SIZE, seed=3)


def silhouette(outline: Outline, side: int = 24) -> np.ndarray:
    """The shape's coverage of the frame, as a plain (side, side) picture."""
    place = Placement(centre=np.array([side / 2, side / 2]), radius=side / 2.4, matrix=np.eye(2) * side / 2.4)
    box = _bounds(outline, place, side)
    picture = np.zeros((side, side))
    picture[box[1] : box[3], box[0] : box[2]] = _coverage(outline, place, box)
    return picture


def nearest_neighbour_accuracy(features: np.ndarray, classes: np.ndarray) -> float:
    distance = ((features[:, None] - features[None]) ** 2).sum(-1)
    np.fill_diagonal(distance, np.inf)
    return float((classes[distance.argmin(1)] == classes).mean())


def test_it_is_a_source_that_the_index_accepts(tmp_path):
    small = SyntheticSource(images=4, size=SIZE)
    assert isinstance(small, Source)
    index = build_index(small, cache_dir=tmp_path, progress=False)
    assert index.ids == small.ids == ("train-00000", "train-00001", "train-00002", "train-00003")
    image, labels = small.read_image("train-00002"), small.read_labels("train-00002")
    assert (image.shape, image.dtype) == ((3, SIZE, SIZE), torch.uint8)
    assert (labels.shape, labels.dtype) == ((SIZE, SIZE), torch.uint8)
    assert small.image_size("train-00002") == (SIZE, SIZE)
    assert 3 in index.classes_in("train-00002")


AREAS = [51379, 540, 2414, 924, 1335, 1552, 1489, 2542, 752, 399, 1756, 757, 1215, 1655, 2351]
AREAS += [613, 781, 2266, 1704, 2029, 805]
MEANS = [119.2, 99.1, 111.5, 113.0, 109.8, 106.9, 103.3, 73.1, 112.1, 100.5]
MEANS += [138.0, 151.0, 108.6, 122.3, 107.8, 130.1, 115.4, 123.8, 100.8, 159.3]
SPREADS = [44.2, 60.5, 57.1, 58.4, 44.6, 42.2, 46.0, 30.2, 30.3, 43.7, 47.9, 47.8, 52.5, 61.3, 43.2, 51.2]
SPREADS += [42.6, 53.1, 54.5, 54.2]


def test_pictures_never_change():
    """One picture of each class: the pixels of each class, and mean and spread of each picture."""
    twenty = SyntheticSource(images=20, size=SIZE, seed=3)
    labels = np.stack([twenty.read_labels(id) for id in twenty.ids])
    images = np.stack([twenty.read_image(id) for id in twenty.ids]).astype(float)
    assert np.abs(np.bincount(labels.ravel(), minlength=256)[:21] - AREAS).max() <= 3  # as rounding has it
    np.testing.assert_allclose(images.mean((1, 2, 3)), MEANS, rtol=0, atol=0.1)
    np.testing.assert_allclose(images.std((1, 2, 3)), SPREADS, rtol=0, atol=0.1)


def test_an_image_depends_on_split_seed_and_number_alone():
    def picture(number: int, seed: int = 0, split: str = "train", images: int = 5) -> torch.Tensor:
        return SyntheticSource(images=images, size=SIZE, seed=seed, split=split).read_image(
            f"{split}-{number:05d}"
        )

    first = picture(3)
    assert torch.equal(first, picture(3, images=50))
    for other in (picture(4), picture(3, seed=1), picture(3, split="val")):
        assert not torch.equal(first, other)


def test_another_size_shows_the_same_scene():
    small, large = (SyntheticSource(images=3, size=size) for size in (64, 128))
    for id in small.ids:
        a, b = small.read_labels(id), large.read_labels(id)[::2, ::2]
        known = (a != IGNORE) & (b != IGNORE)
        assert float((a == b)[known].float().mean()) > 0.97


def test_every_class_is_the_subject_of_the_same_number_of_images(source):
    for i, id in enumerate(source.ids[:60]):
        labels = source.read_labels(id)
        assert int((labels == 1 + i % 20).sum()) > 0.01 * SIZE**2, id


def test_only_the_chosen_classes_are_drawn():
    chosen = SyntheticSource(images=60, size=SIZE, classes=(19, 2, 7))
    seen = {int(v) for id in chosen.ids for v in chosen.read_labels(id).unique()} - {0, IGNORE}
    assert seen == {2, 7, 19}
    assert chosen.class_names == SYNTHETIC_CLASSES


def test_ignored_pixels_are_a_thin_band_between_an_object_and_something_else(source):
    shares = [float((source.read_labels(id) == IGNORE).float().mean()) for id in source.ids[:40]]
    assert 0.05 < np.mean(shares) < 0.07  # both sides of an outline
    for id in source.ids[:40]:
        labels = source.read_labels(id).numpy()
        assert 0 < (labels == IGNORE).mean() < 0.2
        padded = np.pad(labels, 2, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
        inside = (windows == IGNORE).all(axis=(2, 3))
        assert inside.mean() < 0.005, f"{id} has a region of ignored pixels, not a band"


def test_mean_colour_tells_no_class(source):
    colours, classes = [], []
    for id in source.ids:
        image, labels = source.read_image(id).float(), source.read_labels(id)
        for c in set(labels.unique().tolist()) - {0, IGNORE}:
            if int((labels == c).sum()) > 60:
                colours.append(image[:, labels == c].mean(1).numpy())
                classes.append(c)
    assert len(classes) > 700
    assert np.ptp(np.array(colours)) > 150
    assert nearest_neighbour_accuracy(np.array(colours), np.array(classes)) < 2 / 20


def test_outlines_tell_the_class():
    pictures, classes = [], []
    for c, family in enumerate(FAMILIES.values()):
        for k in range(15):
            pictures.append(silhouette(family(Stream(100 * c + k))).ravel())
            classes.append(c)
    assert nearest_neighbour_accuracy(np.array(pictures), np.array(classes)) > 0.9


def test_a_pattern_names_no_class_and_no_unseen_class_has_a_pattern_of_its_own():
    assert set(CLASS_PATTERNS) == set(FAMILIES)
    for fold in range(4):
        split = synthetic_5i(fold)
        assert split.novel == tuple(range(5 * fold + 1, 5 * fold + 6))
        novel = [CLASS_PATTERNS[split.class_names[c]] for c in split.novel]
        base = {CLASS_PATTERNS[split.class_names[c]] for c in split.base}
        assert len(set(novel)) == 5
        assert set(novel) <= base


def test_the_digest_changes_with_everything_that_changes_the_pictures():
    def digest(**changes):
        return SyntheticSource(**{"images": 4, "size": 65, **changes}).digest()

    changes = ({"images": 5}, {"size": 66}, {"seed": 1}, {"split": "val"}, {"classes": (1, 2)})
    assert digest() == digest()
    assert len({digest(), *(digest(**change) for change in changes)}) == 6


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": 0},
        {"size": 31},
        {"classes": ()},
        {"classes": (0, 1)},
        {"classes": (21,)},
        {"split": "test"},
    ],
)
def test_what_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(ValueError, match="a synthetic set needs"):
        SyntheticSource(**({"images": 3, "size": 64} | wrong))
