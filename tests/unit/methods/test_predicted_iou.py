"""IoU of a prediction at the masks' size: that of the argmax of both resized logits."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.fusion import CrossGuided
from fewseg.methods.pair_scorer import predicted_iou


@pytest.mark.parametrize("regions", ["foreground", "mean"])
def test_the_iou_is_that_of_the_argmax_of_the_resized_logits(regions):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 2, 7, 7, generator=generator)
    masks = torch.randint(0, 3, (4, 49, 49), generator=generator, dtype=torch.uint8)
    masks[masks == 2] = 255
    found = predicted_iou(logits, masks, CrossGuided(iou=regions))
    large = F.interpolate(logits, size=(49, 49), mode="bilinear", align_corners=True).argmax(dim=1)
    for i in range(4):
        counted = masks[i] != 255
        said, true = (large[i] == 1) & counted, (masks[i] == 1) & counted
        ious = [(said & true).sum() / (said | true).sum()]
        if regions == "mean":
            ious.append((~said & ~true & counted).sum() / ((~said | ~true) & counted).sum())
        assert float(found[i]) == pytest.approx(float(torch.stack(ious).mean()), abs=1e-6)


def test_equal_logits_are_background():
    logits, masks = torch.zeros(1, 2, 3, 3), torch.ones(1, 3, 3, dtype=torch.uint8)
    assert predicted_iou(logits, masks, CrossGuided()).item() == 0
