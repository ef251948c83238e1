"""The work that both benchmarks measure: rendered pictures, a random ResNet-50 and a head of full size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from fewseg.backbones import BackboneConfig
from fewseg.data.synthetic import SyntheticSource
from fewseg.data.transforms import EvalView, binary_mask
from fewseg.methods.layers import PriorMap
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.registry import MethodConfig
from fewseg.methods.scl import SCLPFENetConfig

_METHODS: dict[str, type[MethodConfig]] = {"pfenet": PFENetConfig, "scl-pfenet": SCLPFENetConfig}


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What to measure.

    Attributes:
        method: which head.
        size: side of the input, pixels; 8k + 1.
        channels: d.
        shots: K.
        batch: episodes a training step.
        bf16: autocast to bfloat16.
        threads: CPU threads; 0 leaves torch's own choice.
    """

    method: Literal["pfenet", "scl-pfenet"] = "scl-pfenet"
    size: int = 241
    channels: int = 256
    shots: int = 1
    batch: int = 4
    bf16: bool = False
    threads: int = 0

    @property
    def device(self) -> str:
        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.bf16 else torch.float32

    def build(self):
        if self.threads:
            torch.set_num_threads(self.threads)
        cells = (self.size - 1) // 8
        config = _METHODS[self.method](
            backbone=BackboneConfig(weights=None, levels=("layer2", "layer3", "layer4")),
            channels=self.channels,
            prior=PriorMap(),
            scales=(cells, cells // 2, cells // 4, cells // 8),
        )
        return config.build().to(self.device, memory_format=torch.channels_last)

    def source(self) -> SyntheticSource:
        return SyntheticSource(64, self.size)

    def episodes(self, source: SyntheticSource, count: int):
        """(count, K + 1) images and masks; the class of an episode is one that its images show or not."""
        view = EvalView(self.size)
        images, masks = [], []
        for i in range(count * (self.shots + 1)):
            id = source.ids[i % len(source.ids)]
            image, labels = view(source.read_image(id), source.read_labels(id))
            class_id = int(labels[(labels > 0) & (labels < 255)].mode().values)
            images.append(image)
            masks.append(binary_mask(labels, class_id))
        shape = (count, self.shots + 1)
        images, masks = torch.stack(images).to(self.device), torch.stack(masks).to(self.device)
        return images.unflatten(0, shape), masks.unflatten(0, shape)

    def autocast(self):
        return torch.autocast(self.device, torch.bfloat16, enabled=self.bf16)
