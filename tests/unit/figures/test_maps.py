"""Maps as numbers, and pictures of them."""

import numpy as np
import pytest
import torch

from fewseg.methods.sdaanet import gated
from fewseg.reports.figures.drawing import overlay, unit_range
from fewseg.reports.figures.maps import attention_maps, contrast, prototype_similarity, similarity_maps
from fewseg.reports.figures.model import Support
from fewseg.types import Guides


def test_likeness_is_the_cosine_of_each_cell():
    generator = torch.Generator().manual_seed(0)
    maps, prototypes = torch.randn(2, 4, 3, 5, generator=generator), torch.randn(2, 4, generator=generator)
    found = prototype_similarity(maps, prototypes)
    for n in range(2):
        for y in range(3):
            for x in range(5):
                cosine = torch.cosine_similarity(maps[n, :, y, x], prototypes[n], dim=0)
                assert found[n, y, x] == pytest.approx(float(cosine), abs=1e-5)
    assert (prototype_similarity(maps, torch.zeros(2, 4)) == 0).all()


def test_contrast_counts_pairs_in_order_with_ties_half():
    values = torch.tensor([[3.0, 1.0, 1.0], [0.0, 2.0, 9.0]])
    foreground = torch.tensor([[True, True, False], [False, False, False]])
    counted = torch.tensor([[True, True, True], [True, True, False]])
    found = contrast(values, foreground, counted)
    assert (found.inside, found.outside) == (2.0, 1.0)
    assert found.order == pytest.approx((3 + 1.5) / 6)
    assert contrast(values, torch.zeros_like(foreground), counted) is None


def test_an_overlay_is_lighter_where_the_value_is_higher_and_outlines_the_target():
    assert (unit_range(np.full((2, 2), 7.0, np.float32)) == 0).all()
    assert unit_range(np.array([[1.0, 3.0, 2.0]], np.float32)).tolist() == [[0.0, 1.0, 0.5]]
    picture = np.full((6, 6, 3), 100, np.uint8)
    values = np.zeros((6, 6), np.float32)
    values[:, 3:] = 1
    truth = np.zeros((6, 6), dtype=bool)
    truth[1:5, 1:5] = True
    found = overlay(picture, values, truth)
    assert found[0, 0].mean() < found[0, 5].mean() < 255
    assert (found[1, 1] == 255).all()
    assert (found[2, 2] == overlay(picture, values)[2, 2]).all()
    assert (picture == 100).all()


def test_attention_is_that_of_the_support_on_the_query(model_of):
    model = model_of("sdaanet", episodes=6)
    specs = [spec for _, spec in model.episodes()]
    found = attention_maps(model, specs)
    assert set(found) == {(Support(s.class_id, s.supports[0]), s.query) for s in specs}
    images, spec = model.evaluator().images, specs[0]
    with torch.no_grad():
        guides = model.method.encode_shots(
            images.features(spec.supports), images.masks(spec.supports, [spec.class_id])
        )
        query = model.method.encode_query(images.features([spec.query]))
        plain = model.method.attention_map(query, Guides.stack([guides]))[0, 0]
    assert torch.allclose(
        found[Support(spec.class_id, spec.supports[0]), spec.query], plain, atol=2e-2, rtol=2e-2
    )


def test_likeness_is_to_the_prototype_behind_the_gate(model_of):
    for name in ("sdaanet", "sdaanet_baseline"):
        model = model_of(name, episodes=6)
        specs = [spec for _, spec in model.episodes()]
        found = similarity_maps(model, specs)
        shot = Support(specs[0].class_id, specs[0].supports[0])
        images, method = model.evaluator().images, model.method
        with torch.no_grad():
            features = images.features([shot.image])
            masks = images.masks([shot.image], [shot.class_id])
            prototype = method.encode_shots(features, masks)["vectors"][0, 0]
            cells = method.mid_support.of(features)[0]
            if name == "sdaanet":
                raw = method.encode_shots(features, masks)["ungated"]
                cells = cells * gated(method.gate(raw))[0, :, None, None]
        plain = torch.cosine_similarity(cells.float(), prototype.float()[:, None, None], dim=0)
        assert torch.allclose(found[shot], plain, atol=1e-4)
