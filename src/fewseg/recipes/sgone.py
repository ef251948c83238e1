"""SG-One, a single file beside those of the three papers: on PASCAL-5i and, in short, on voc5i-mini."""

from __future__ import annotations

from fewseg.data.protocols import PAPER_SRPNET, VOC5I_MINI
from fewseg.methods.sgone import SGOneConfig
from fewseg.recipes.datasets import pascal, voc5i_mini
from fewseg.recipes.papers import prototype_training
from fewseg.recipes.recipe import Recipe, register
from fewseg.recipes.variants import PrintedRow, Variant
from fewseg.recipes.voc5i_mini import SIZE, head_training, trunk

SGONE = Variant(
    name="sgone",
    label="SG-One",
    baselines=("matcher",),
    printed=(PrintedRow(paper="scl", row="SG-One", table="1"),),
)


@register(SGONE)
def pascal_sgone_vgg16() -> Recipe:
    """SG-One, VGG-16, PASCAL-5i: SCL (Zhang et al. 2021), Table 1, row "SG-One".

    Deviations: schedule, input size and augmentation are PANet's; the mean of the K guidance vectors alone.
    """
    return Recipe(
        method=SGOneConfig(),
        data=pascal,
        train=prototype_training(),
        size=417,
        protocol=PAPER_SRPNET,
    )


@register(SGONE)
def voc5i_mini_sgone() -> Recipe:
    """SG-One on voc5i-mini: ResNet-50 up to layer2, frozen, in place of VGG-16's first blocks.

    In 500 steps of one episode, end to end, it learned on fold 0 to call everything background.
    """
    return Recipe(
        method=SGOneConfig(backbone=trunk(("layer2",))),
        data=voc5i_mini,
        train=head_training(),
        size=SIZE,
        protocol=VOC5I_MINI,
    )
