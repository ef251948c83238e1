"""Small models with random weights, and pictures of a bright square."""

from dataclasses import fields, replace
from functools import cache

import numpy as np
import torch

from fewseg.backbones import BackboneConfig, ResNetShape
from fewseg.engine.checkpoint import Checkpoint, save_checkpoint
from fewseg.inference import Model, Segmenter, Whole
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.registry import METHODS
from fewseg.types import ImageEpisodes

SIZE = 65
SHAPE = ResNetShape(layers=(1, 1, 1, 1), channels=(4, 8, 8, 8), stem_width=4)


def small_backbone(*levels, **changes):
    """A tiny ResNet; of the named blocks of a stage it has the first."""
    levels = dict.fromkeys(f"{level.split('.')[0]}.0" if "." in level else level for level in levels)
    return BackboneConfig(name="resnet18", weights=None, levels=tuple(levels), shape=SHAPE, **changes)


def built(config):
    """The method of a config with the same random weights each time, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return config.build().eval()


def tiny(config, seed=0):
    small = {"backbone": small_backbone(*config.backbone.levels, seed=seed)}
    names = {f.name for f in fields(config)}
    if "channels" in names:
        small["channels"] = 8
    if "scales" in names:
        small["scales"] = tuple(min(s, 1.0) for s in config.scales)
    return replace(config, **small)


@cache
def model(name="matcher", size=SIZE, views=None, seed=0):
    config = tiny(METHODS[name](), seed) if name != "matcher" else tiny(MatcherConfig(), seed)
    torch.manual_seed(1)
    return Model(config.build().eval(), config, size, views or Whole())


def tiny_checkpoint(path):
    """Writes the small matcher, its backbone included."""
    save_checkpoint(path, model().method, Checkpoint(config=model().config), whole=True)
    return path


def segmenter(name="matcher", **keywords):
    return Segmenter(model(name, **keywords))


def with_squares(name="matcher", shots=2, **keywords):
    """A segmenter that has seen some squares."""
    it = segmenter(name, **keywords)
    for k in range(shots):
        it.add_class("square", *picture(k))
    return it


def iou(a, b):
    return float((a & b).sum() / (a | b).sum())


def episodes_of(images, masks, pair_ids=None):
    """Training episodes of images (B, K + 1, 3, H, W) and masks, the last of each row being the query."""
    return ImageEpisodes(
        support_images=images[:, :-1],
        support_masks=masks[:, :-1],
        query_images=images[:, -1],
        query_masks=masks[:, -1],
        pair_ids=pair_ids,
        labels=masks[:, -1],
    )


def picture(seed=0, hw=(50, 70), box=(10, 40, 20, 55), colour=(250, 30, 30)):
    """A noisy dark picture (H, W, 3) with a bright rectangle (top, bottom, left, right), and its mask."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 60, (*hw, 3)).astype(np.uint8)
    mask = np.zeros(hw, np.uint8)
    top, bottom, left, right = box
    image[top:bottom, left:right] = np.minimum(255, rng.integers(0, 40, 3) + np.array(colour)).astype(
        np.uint8
    )
    mask[top:bottom, left:right] = 1
    return image, mask
