"""The images of an evaluation: stored features as the method reads them, and their masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fewseg.data.transforms import way_labels
from fewseg.engine.byte_pool import BytePool
from fewseg.engine.feature_store import FeatureStore
from fewseg.methods.base import FewShotSegmenter
from fewseg.types import Features


class SharedImages:
    """Gives features and masks of the store's plain view; features are kept as the pool has room.

    Args:
        method: whose ``embed`` is applied, once an image.
        store: the features.
        pool: keeps embedded maps, and stored ones that the network takes in another form than they are on
            the disk, while nothing else needs the room.
        fp32: turn stored features into float32.
    """

    def __init__(self, method: FewShotSegmenter, store: FeatureStore, pool: BytePool, *, fp32: bool) -> None:
        self.method, self.store, self.pool = method, store, pool
        self.device = method.backbone.mean.device
        self._dtype = torch.float32 if fp32 else None
        self._embeds = type(method).embed is not FewShotSegmenter.embed
        self._levels: tuple[str, ...] = ()
        self._as_on_disk = self.device.type == "cpu" and self._dtype in (None, store.dtype)

    def features(self, ids: Sequence[str]) -> Features:
        """Features of images, embedded where the method embeds."""
        found = [self._embedded(id) if self._embeds else self._stored(id) for id in ids]
        return found[0] if len(found) == 1 else Features.stack(found)

    def fresh(self, id: str) -> Features:
        """The same of one image, by a pass of its own through the backbone: nothing is read or kept."""
        pixels = self.store.view(id, 0)[0].unsqueeze(0)
        parameter = next(self.store.backbone.parameters())
        images = pixels.to(parameter.device, parameter.dtype)
        found = self.store.backbone(images.contiguous(memory_format=torch.channels_last))
        found = found.to(dtype=self.store.dtype).to(self.device, self._dtype)
        maps = {k: v.contiguous(memory_format=torch.channels_last) for k, v in found.maps.items()}
        return self.method.embed(Features(maps=maps, image_size=found.image_size))

    def fresh_masks(self, id: str, classes: Sequence[int]) -> Tensor:
        """Masks (1, size, size) of one image, read anew."""
        return way_labels(self.store.view(id, 0)[1].unsqueeze(0), classes).to(self.device)

    def masks(self, ids: Sequence[str], classes: Sequence[int]) -> Tensor:
        """Masks (n, size, size) of the classes in order, at the network's input size."""
        return way_labels(self.store.labels(ids), classes).to(self.device)

    def _embedded(self, id: str) -> Features:
        kept = self.pool.get(("embedded", id))
        if kept is None:
            found = self.method.embed(self._read(id))
            self._levels, kept = tuple(found.maps), tuple(found.maps.values())
            self.pool.put(("embedded", id), kept)
        return self._features(kept)

    def _stored(self, id: str) -> Features:
        kept = self.pool.get(("stored", id))
        if kept is None:
            found = self._read(id)
            if self._as_on_disk:  # the file's own pages, which are not ours to keep
                return found
            self._levels, kept = tuple(found.maps), tuple(found.maps.values())
            self.pool.lend(("stored", id), kept)
        return self._features(kept)

    def _read(self, id: str) -> Features:
        return self.store.features([id]).to(self.device, self._dtype)

    def _features(self, maps: Sequence[Tensor]) -> Features:
        size = (self.store.size, self.store.size)
        return Features(maps=dict(zip(self._levels, maps, strict=True)), image_size=size)
