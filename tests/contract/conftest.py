"""The cases of the contract suite: every registered method and every recipe, on a tiny network.

A test that takes ``config`` runs once for every method with every fusion (where it is marked ``one_fusion``,
with the method's own), and once for every recipe whose parts differ from those. A new method or recipe is
registered and inherits the whole battery.
"""

from dataclasses import fields, replace
from functools import cache
from typing import get_type_hints

import pytest
import torch
from torch import nn

from fewseg.methods.bam import BAM
from fewseg.methods.combined import CombinedConfig
from fewseg.methods.fitted import LinearHead
from fewseg.methods.hsnet import HSNet
from fewseg.methods.pair_scorer import PairScorer
from fewseg.methods.registry import METHODS, method_name, part_classes
from fewseg.recipes.registry import RECIPES
from fewseg.types import EncodedShots
from small_segmenters import episodes_of, small_backbone

SIDE = 65


def tiny(config):
    """The same parts on a tiny random ResNet, at eight channels."""
    small = {"backbone": small_backbone(*config.backbone.levels, trainable=config.backbone.trainable)}
    if "channels" in {f.name for f in fields(config)}:
        small["channels"] = 8
    if "scales" in {f.name for f in fields(config)}:  # 60 cells for a map of 9 would only cost time
        small["scales"] = tuple(s if isinstance(s, float) else min(s, 12) for s in config.scales)
    if "region_cells" in {f.name for f in fields(config)}:  # or every object would be one region
        small["region_cells"] = 4
    if "rank" in {f.name for f in fields(config)}:  # random maps vary along two directions in all
        small["rank"] = 0
    if "decay" in {f.name for f in fields(config)}:  # with one best head, so that rounding stays rounding
        small |= {"head": LinearHead(), "decay": 1.0, "cells": 200, "steps": 400}
    return replace(config, **small)


def method_cases(one_fusion):
    """Every registered method with every fusion, or with its own."""
    cases = {}
    for name, kind in METHODS.items():
        config = tiny(kind())
        fusions = [] if one_fusion else [part() for part in part_classes(get_type_hints(kind)["fusion"])]
        for fusion in fusions or [config.fusion]:
            cases.setdefault(replace(config, fusion=fusion), f"{name}-{fusion.kind}")
    return cases


def all_cases(one_fusion):
    """The methods, and every recipe's parts where they differ."""
    cases = method_cases(one_fusion)
    for name, maker in RECIPES.items():
        cases.setdefault(tiny(maker().method), name)
    return cases


def pytest_generate_tests(metafunc):
    if "config" in metafunc.fixturenames:
        evaluated = metafunc.module.__name__.endswith("test_evaluator")  # dear, and parts change little there
        one_fusion = metafunc.definition.get_closest_marker("one_fusion") is not None
        cases = method_cases(one_fusion) if evaluated else all_cases(one_fusion)
        metafunc.parametrize("config", list(cases), ids=list(cases.values()))


@cache
def built(config):
    """The model with random weights, made to be of two minds about every pixel.

    The default initial values shrink what runs through the head layer by layer, until its answer is one
    class everywhere and hangs on the last digits; with these it varies from cell to cell.
    """
    with torch.random.fork_rng():
        torch.manual_seed(8 if isinstance(config, CombinedConfig) else 0)  # with 0 it finds nothing
        model = ready(config.build()).eval()
        head = last_convolution(model)
        if head is not None:
            for name, module in model.named_modules():
                if isinstance(module, nn.Conv2d) and not name.startswith("backbone."):
                    nn.init.kaiming_normal_(module.weight)
            _balance(model, head)
    return model


def ready(model):
    """The model; BAM takes its random base learner for a trained one."""
    if isinstance(model, BAM):
        model.has_base.fill_(True)
    return model


def last_convolution(model):
    """What gives the logits of a method with a decoder; None for the others."""
    if isinstance(model, PairScorer) and hasattr(model, "trunk"):
        return model.trunk.classifier[-1]
    return model.decoder.fine[-1] if isinstance(model, HSNet) else None


def _balance(model, head):
    images, masks = pictures(4, 1)
    maps = model.encode_query(model.extract(images.flatten(0, 1).flip(0)))
    with torch.no_grad():
        guides = model.encode_shots(model.extract(images.flatten(0, 1)), masks.flatten(0, 1))
        logits = model.score(maps, guides)
        difference = logits[:, 1] - logits[:, 0]
        head.bias[1] -= difference.median()
        head.weight /= difference.std()
        head.bias /= difference.std()


def pictures(episodes, shots, seed=0):
    """Light rectangles on noise with an ignored edge: images (B, K, 3, H, W) and masks (B, K, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.6 * torch.rand(episodes, shots, 3, SIDE, SIDE, generator=generator)
    masks = torch.zeros(episodes, shots, SIDE, SIDE, dtype=torch.uint8)
    for b in range(episodes):
        for k in range(shots):
            top, left = (int(v) for v in torch.randint(0, 30, (2,), generator=generator))
            masks[b, k, top : top + 30, left : left + 25] = 1
            masks[b, k, top : top + 30, left + 25] = 255
    return images + 0.4 * (masks == 1).unsqueeze(2), masks


def encode(model, images, masks):
    return EncodedShots(features=model.extract(images.flatten(0, 1)), masks=masks)


def answer(model, images, masks, query):
    """Logits of query images (n, 3, H, W) under support sets, as a user would get them."""
    with torch.no_grad():
        return model.segment(model.extract(query), model.encode_support(encode(model, images, masks)))


@pytest.fixture
def model(config):
    return built(config)


@pytest.fixture
def fresh(config):
    """A model of the test's own, free to be changed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ready(config.build())


@pytest.fixture
def shots():
    """(episodes, shots, seed) -> support images and masks."""
    return pictures


@pytest.fixture
def query():
    """Two query images."""
    return pictures(1, 2, seed=9)[0][0]


@pytest.fixture
def ask():
    """(model, support images, support masks, query images) -> logits."""
    return answer


@pytest.fixture
def encoded():
    """(model, support images, support masks) -> encoded shots."""
    return encode


@pytest.fixture
def episodes():
    """(shots) -> a batch of two training episodes."""

    def make(shots, seed=0):
        return episodes_of(*pictures(2, shots + 1, seed))

    return make


@pytest.fixture
def name(config):
    return method_name(config)
