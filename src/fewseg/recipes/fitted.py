"""Fitted heads: no paper has them; on PASCAL-5i, on voc5i-mini, and for a user's own images."""

from __future__ import annotations

from fewseg.backbones import BackboneConfig
from fewseg.backbones.trunks import IMAGE
from fewseg.data.protocols import PAPER_SRPNET, VOC5I_MINI
from fewseg.methods.fitted import FittedConfig, LinearHead
from fewseg.methods.fusion import JointFit
from fewseg.recipes.datasets import pascal, voc5i_mini
from fewseg.recipes.recipe import Recipe, joined_by, register
from fewseg.recipes.variants import Variant
from fewseg.recipes.voc5i_mini import SIZE, trunk

FITTED = Variant(name="fitted", label="fitted head", baselines=("matcher",))
FITTED_PIXELS = Variant(name="fitted_pixels", label="fitted head, down to the pixel", baselines=("matcher",))

_LINES = joined_by(JointFit())
_SEMANTIC = ("layer2", "layer3")
_ALL = (IMAGE, "stem", "layer1", "layer2", "layer3")


@register(FITTED)
def voc5i_mini_fitted() -> Recipe:
    """A linear head on layer2 and layer3 with the matcher's score, for classes across scenes, on voc5i-mini.

    Nothing is trained. The matcher's weight, 64 by the number of shots, was chosen on base classes.
    """
    method = FittedConfig(
        backbone=trunk(_SEMANTIC), levels=_SEMANTIC, head=LinearHead(), decay=1e-2, cells=2000, matcher=64.0
    )
    return Recipe(
        method=method, data=voc5i_mini, train=None, size=SIZE, protocol=VOC5I_MINI, evaluations=_LINES
    )


@register(FITTED_PIXELS)
def fitted_resnet50() -> Recipe:
    """A head of 32 hidden units on colours, edges and every level of a ResNet-50; nothing is trained.

    For things that look alike from image to image: parts, damage, cells, vessels, leaves.
    """
    method = FittedConfig(backbone=BackboneConfig(levels=_ALL), levels=_ALL)
    return Recipe(method=method, data=pascal, train=None, size=473, protocol=PAPER_SRPNET, evaluations=_LINES)


@register(FITTED_PIXELS)
def voc5i_mini_fitted_pixels() -> Recipe:
    """``fitted_resnet50`` with the ResNet-50 trunk of the small real set, on voc5i-mini."""
    method = FittedConfig(backbone=trunk(_ALL), levels=_ALL)
    return Recipe(
        method=method, data=voc5i_mini, train=None, size=SIZE, protocol=VOC5I_MINI, evaluations=_LINES
    )
