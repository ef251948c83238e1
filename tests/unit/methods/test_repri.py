"""RePRI's fit against one written plainly, an episode and a cell at a time."""

import math

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.repri import (
    RePRIConfig,
    classifier_logits,
    proportion_divergence,
    query_entropy,
    support_cross_entropy,
)
from fewseg.types import EncodedShots
from small_segmenters import built, small_backbone


def small(**changes):
    return built(RePRIConfig(backbone=small_backbone("layer3"), level="layer3", **changes))


def test_the_three_terms_are_those_of_the_paper():
    p = torch.tensor([[0.2, 0.7, 0.9]], dtype=torch.float64)
    logits = (p / (1 - p)).log()
    foreground, background = torch.tensor([[0.0, 3.0, 1.0]]), torch.tensor([[2.0, 1.0, 0.0]])
    expected = -(2 * math.log(0.8) + 3 * math.log(0.7) + math.log(0.3) + math.log(0.9)) / 7
    assert float(support_cross_entropy(logits, foreground, background)) == pytest.approx(expected)
    entropy = -sum(q * math.log(q) + (1 - q) * math.log(1 - q) for q in (0.2, 0.7, 0.9)) / 3
    assert float(query_entropy(logits)) == pytest.approx(entropy)
    divergence = 0.6 * math.log(0.6 / 0.4) + 0.4 * math.log(0.4 / 0.6)
    assert float(proportion_divergence(torch.tensor([0.6]), torch.tensor([0.4]))) == pytest.approx(divergence)
    cells, vectors = torch.tensor([[[0.6, 0.8]]]), torch.tensor([[2.0, 0.0]])
    assert classifier_logits(cells, vectors, torch.tensor([0.5]), 20.0).item() == pytest.approx(2.0)


def pixels_of_cells(inside, size):
    """The derivative of the pixels' sum by each cell: how many pixels a cell gives."""
    cells = torch.zeros(len(inside), 1, *size, requires_grad=True)
    up = F.interpolate(cells, size=(65, 65), mode="bilinear", align_corners=True)
    return torch.autograd.grad((up * inside[:, None]).sum(), cells)[0].flatten()


def p_of(z, w, b):
    return torch.sigmoid(20 * (z @ F.normalize(w, dim=0) - b))


def test_each_episode_is_fitted_as_by_plain_gradient_descent(shots):
    repri = small(steps=4, update_at=2)
    images, masks = shots(2, 3)
    query = images[:, 2]
    found = repri(query, images[:, :2], masks[:, :2])
    for e in range(2):
        maps = repri.extract(images[e, :2])["layer3"]
        centre = maps.mean(dim=(0, 2, 3), keepdim=True)
        maps = (maps - centre).double()  # or a plain logarithm meets a probability of 1
        full = F.interpolate(maps, size=(65, 65), mode="bilinear", align_corners=True)
        w = torch.stack([full[k][:, masks[e, k] == 1].mean(dim=1) for k in range(2)]).mean(dim=0)
        w = F.normalize(w, dim=0)
        z_s = F.normalize(maps, dim=1)
        z_q = F.normalize(repri.extract(query[e : e + 1])["layer3"].double() - centre, dim=1)[0].flatten(1).T
        b = (z_q @ F.normalize(w, dim=0)).mean()

        fg, bg = (pixels_of_cells(masks[e, :2] == label, maps.shape[-2:]) for label in (1, 0))
        for t in range(4):
            w, b = w.detach().requires_grad_(), b.detach().requires_grad_()
            p, q = p_of(z_s.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]), w, b), p_of(z_q, w, b)
            if t in (0, 2):
                pi = q.mean().detach()
            ce = -(fg * p.log() + bg * (1 - p).log()).sum() / (fg + bg).sum()
            h = -(q * q.log() + (1 - q) * (1 - q).log()).mean()
            m = q.mean()
            kl = m * (m / pi).log() + (1 - m) * ((1 - m) / (1 - pi)).log()
            gw, gb = torch.autograd.grad(ce + 0.5 * (h + kl), (w, b))
            w, b = w - 0.025 * gw, b - 0.025 * gb
        margin = (20 * (z_q @ F.normalize(w, dim=0) - b)).view(1, 1, *maps.shape[-2:]).detach()
        expected = F.interpolate(margin, size=(65, 65), mode="bilinear", align_corners=True)
        torch.testing.assert_close(found[e, 1:] - found[e, :1], expected[0].float(), atol=1e-3, rtol=1e-3)


def test_the_fit_works_on_features_of_inference_mode_and_keeps_no_graph(shots):
    repri = small(steps=2)
    images, masks = shots(1, 2)
    with torch.inference_mode():
        features = repri.extract(images[0])
        state = repri.encode_support(EncodedShots(features=features, masks=masks))
        logits = repri.segment(features, state)
    assert not logits.requires_grad
    assert not torch.equal(logits, small(steps=0).segment(features, state))


def test_numbers_out_of_range_and_unknown_levels_are_refused():
    for name in ("temperature", "rate"):
        with pytest.raises(ValueError, match=f"{name} must be above 0, got 0.0"):
            small(**{name: 0.0})
    for name in ("steps", "update_at", "query_weight"):
        with pytest.raises(ValueError, match=f"{name} must be 0 or more, got -1"):
            small(**{name: -1})
    with pytest.raises(ValueError, match=r"reads levels \('layer4',\) and the backbone gives \('layer3',\)"):
        RePRIConfig(backbone=small_backbone("layer3"))
