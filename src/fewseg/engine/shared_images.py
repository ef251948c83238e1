"""The images of an evaluation: stored features as the method reads them, and their masks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from fewseg.data.transforms import way_labels
from fewseg.engine.feature_store import FeatureStore
from fewseg.methods.base import FewShotSegmenter
from fewseg.types import Features

BYTE_BUDGET = 2 << 30
"""Bytes of embedded maps that are kept; those used longest ago go first."""


class SharedImages:
    """Gives features and masks of the store's plain view; what a method embeds is kept.

    Args:
        method: whose ``embed`` is applied, once an image.
        store: the features.
        fp32: turn stored features into float32.
    """

    def __init__(self, method: FewShotSegmenter, store: FeatureStore, *, fp32: bool) -> None:
        self.method, self.store = method, store
        self.device = method.backbone.mean.device
        self._dtype = torch.float32 if fp32 else None
        self._embeds = type(method).embed is not FewShotSegmenter.embed
        self._kept: OrderedDict[str, Features] = OrderedDict()
        self._bytes = 0

    def features(self, ids: Sequence[str]) -> Features:
        """Features of images, embedded where the method embeds."""
        if not self._embeds:
            return self.store.features(ids).to(self.device, self._dtype)
        return Features.stack([self._embedded(id) for id in ids])

    def masks(self, ids: Sequence[str], classes: Sequence[int]) -> Tensor:
        """Masks (n, size, size) of the classes in order, at the network's input size."""
        return way_labels(self.store.labels(ids), classes).to(self.device)

    def _embedded(self, id: str) -> Features:
        if id in self._kept:
            self._kept.move_to_end(id)
            return self._kept[id]
        found = self.method.embed(self.store.features([id]).to(self.device, self._dtype))
        self._kept[id] = found
        self._bytes += _size(found)
        while self._bytes > BYTE_BUDGET and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return found


def _size(features: Features) -> int:
    return sum(values.numel() * values.element_size() for values in features.maps.values())
