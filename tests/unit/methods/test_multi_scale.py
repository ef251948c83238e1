"""Multi-scale inference adds the probabilities of several input sizes, whatever the method."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.canet import CANetConfig
from fewseg.methods.fusion import MeanVector
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.multi_scale import MultiScale, added_probabilities
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.sdaanet import SDAANetConfig
from fewseg.types import EncodedShots

METHODS = (PFENetConfig, MatcherConfig, CANetConfig, SDAANetConfig)


def single(method, size, images, masks, query):
    """One size by hand."""
    side = (size, size)
    pictures = torch.cat([images[0], query])
    pictures = F.interpolate(pictures, size=side, mode="bilinear", align_corners=False, antialias=True)
    scaled = F.interpolate(masks.float(), size=side, mode="nearest-exact").to(torch.uint8)
    support = EncodedShots(features=method.extract(pictures[: images.shape[1]]), masks=scaled)
    return method.segment(method.extract(pictures[images.shape[1] :]), method.encode_support(support))


@pytest.mark.parametrize("config", METHODS, ids=lambda kind: kind.__name__)
def test_the_probabilities_of_the_sizes_are_added_at_the_largest(make_method, shots, config):
    method = make_method(config, fusion=MeanVector())
    images, masks = shots(1, 2)
    query = shots(1, 3, seed=1)[0][0]
    scales = MultiScale(sizes=(49, 65))
    with torch.no_grad():
        found = scales.segment(method, query, scales.encode_support(method, images, masks))
        expected = F.interpolate(
            single(method, 49, images, masks, query).softmax(1),
            size=(65, 65),
            mode="bilinear",
            align_corners=True,
        )
        expected = expected + single(method, 65, images, masks, query).softmax(1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.sum(dim=1), torch.full((3, 65, 65), 2.0))


def test_it_is_the_probabilities_that_are_brought_to_the_largest_size_not_the_logits():
    small, large = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 3, 3)
    small[0, 1, :, 0] = 8.0
    found = added_probabilities([small, large])[0, 1, 0]
    sure = float(torch.tensor(8.0).sigmoid())
    torch.testing.assert_close(found, torch.tensor([sure, (sure + 0.5) / 2, 0.5]) + 0.5)


@pytest.mark.parametrize("sizes", [(), (65, 65), (0, 65)])
def test_no_size_one_twice_or_an_empty_one_is_refused(sizes):
    with pytest.raises(ValueError, match="each once"):
        MultiScale(sizes=sizes)


def test_pictures_that_are_not_square_and_states_of_other_sizes_are_refused(make_method, shots):
    method, scales = make_method(PFENetConfig), MultiScale(sizes=(49, 65))
    images, masks = shots(1, 1)
    with pytest.raises(ValueError, match=r"square views, got \(65, 64\): letterbox"):
        scales.encode_support(method, images[..., :64], masks[..., :64])
    states = scales.encode_support(method, images, masks)
    with pytest.raises(ValueError, match="got 1 states for the 2 sizes"):
        scales.segment(method, images[0], states[:1])
