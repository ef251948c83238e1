"""What a method embeds is kept an image at a time, as far as the bytes allow."""

import pytest
import torch

from fewseg.engine.evaluate import ByteCache, ImageFeatures
from fewseg.methods.base import FewShotSegmenter
from fewseg.types import Features

BYTES = 2 * 3 * 3 * 4
"""Of one embedded image: two channels on 3 x 3 cells in float32."""


class Embeds(FewShotSegmenter):
    """Adds one, and counts for which images."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.backbone = torch.nn.Module()
        self.backbone.mean = torch.zeros(3)
        self.seen = []

    def embed(self, features):
        self.seen.append(float(features["stored"][0, 0, 0, 0]))
        return Features(maps={"embedded": features["stored"] + 1}, image_size=features.image_size)

    encode_support = segment = training_losses = None


class DoesNot(Embeds):
    embed = FewShotSegmenter.embed


class Store:
    """Image "i" is full of the number i; its labels hold the classes 3 and 7."""

    size = 17

    def __init__(self, dtype=torch.float32):
        self.dtype, self.asked = dtype, []

    def features(self, ids):
        self.asked.append(list(ids))
        maps = torch.stack([torch.full((2, 3, 3), float(id), dtype=self.dtype) for id in ids])
        return Features(maps={"stored": maps}, image_size=(17, 17))

    def labels(self, ids):
        return torch.tensor([[[0, 3], [7, 255]]] * len(ids), dtype=torch.uint8)


def values(features):
    return features["embedded"][:, 0, 0, 0].tolist()


def test_each_image_is_embedded_once_in_whatever_company_it_is_asked_for():
    method = Embeds()
    images = ImageFeatures(method, Store(), ByteCache(1 << 20), fp32=True)
    assert values(images.features(["1", "2"])) == [2, 3]
    assert values(images.features(["2", "3", "2", "1"])) == [3, 4, 3, 2]
    assert method.seen == [1, 2, 3]
    assert images.features(["1"]).image_size == (17, 17)


@pytest.mark.parametrize("fits", [1, 2, 3])
def test_what_is_beyond_the_budget_is_embedded_again(fits):
    method, cache = Embeds(), ByteCache(fits * BYTES)
    images = ImageFeatures(method, Store(), cache, fp32=True)
    for id in ("1", "2", "1", "3"):
        images.features([id])
    assert cache.bytes == fits * BYTES
    assert values(images.features(["3", "1", "2"])) == [4, 2, 3]
    assert len(method.seen) == {1: 6, 2: 4, 3: 3}[fits]


@pytest.mark.parametrize(("fits", "reads"), [(9, 3), (1, 7)])
def test_a_method_that_embeds_nothing_reads_an_image_again_only_where_the_budget_has_no_room(fits, reads):
    store, pool = Store(torch.bfloat16), ByteCache(fits * BYTES)
    images = ImageFeatures(DoesNot(), store, pool, fp32=True)
    for ids in (["1", "2"], ["3", "1"], ["2", "1", "3"]):
        assert images.features(ids)["stored"][:, 0, 0, 0].tolist() == [float(id) for id in ids]
        assert pool.bytes <= fits * BYTES
    assert len(store.asked) == reads


@pytest.mark.parametrize("method", [Embeds, DoesNot])
@pytest.mark.parametrize(("fp32", "expected"), [(True, torch.float32), (False, torch.bfloat16)])
def test_stored_types_are_kept_or_made_float32(method, fp32, expected):
    images = ImageFeatures(method(), Store(torch.bfloat16), ByteCache(1 << 20), fp32=fp32)
    (maps,) = images.features(["1"]).maps.values()
    assert maps.dtype == expected
