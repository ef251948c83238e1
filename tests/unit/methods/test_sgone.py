"""SG-One's parts by hand; the contract suite and the recipes' tests take it up by its registration."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.sgone import SGOneConfig
from small_segmenters import episodes_of


@pytest.fixture
def sgone(make_method):
    return make_method(SGOneConfig)


def test_the_guidance_vector_is_the_mean_over_the_masks_pixels(sgone, shots):
    images, masks = shots(1, 2)
    features = sgone.extract(images[0])
    found = sgone.encode_shots(features, masks[0])["vectors"]
    maps = F.interpolate(sgone.guidance(features["layer2"]), (65, 65), mode="bilinear", align_corners=True)
    for k in range(2):
        expected = maps[k][:, masks[0, k] == 1].mean(dim=1)
        torch.testing.assert_close(found[k, 0], expected, atol=1e-5, rtol=1e-4)


def test_the_cosine_with_each_cell_multiplies_the_segmentation_branch(sgone, shots):
    images, masks = shots(1, 2)
    features = sgone.extract(images[0])
    query, guides = sgone.encode_query(features), sgone.encode_shots(features, masks[0])
    guidance = sgone.guidance(features["layer2"])
    cosine = F.cosine_similarity(guidance, guides["vectors"][:, 0, :, None, None]).unsqueeze(1)
    torch.testing.assert_close(sgone.similarity(query, guides), cosine)
    branch = torch.cat([sgone.entry(features["layer2"]), guidance], dim=1)
    torch.testing.assert_close(sgone.score(query, guides), sgone.classifier(sgone.joined(branch) * cosine))


def test_several_shots_train_on_the_mean_of_their_vectors(sgone, shots):
    images, masks = shots(2, 3)
    batch = episodes_of(images, masks)
    logits = sgone(images[:, 2], images[:, :2], masks[:, :2])
    expected = F.cross_entropy(logits, masks[:, 2].long(), ignore_index=255)
    torch.testing.assert_close(sgone.losses(batch).total, expected)
