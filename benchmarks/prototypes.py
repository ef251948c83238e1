"""What SRPNet's two parts cost: SRP a training step, IQI a support set beside a backbone pass.

SRP is a loss: inference has no line of it, so that there is nothing to measure there. Features are embedded
once; iteration works on them alone and may take a tenth of a backbone pass. The ratios are of one run.

uv run python benchmarks/prototypes.py [--size 241] [--shots 5] [--steps 5] [--last layer3] [--threads 1]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import tyro

from fewseg.backbones import BackboneConfig
from fewseg.methods.fusion import IterativeInference, MeanVector
from fewseg.methods.srpnet import SRPNetConfig
from fewseg.types import EncodedShots, ImageEpisodes
from floor import measure
from workload import Workload

_LEVELS = ("stem", "layer1", "layer2", "layer3", "layer4")


@dataclass(frozen=True, kw_only=True)
class PrototypeWorkload:
    """What to measure.

    Attributes:
        size: side of the input, pixels; 8k + 1.
        shots: K.
        steps: N of the iteration.
        last: the deepest stage of the ResNet-50.
        threads: CPU threads; 0 leaves torch's own choice.
    """

    size: int = 241
    shots: int = 1
    steps: int = 5
    last: Literal["layer3", "layer4"] = "layer4"
    threads: int = 0


def main(work: PrototypeWorkload) -> None:
    if work.threads:
        torch.set_num_threads(work.threads)
    rendered = Workload(size=work.size, shots=work.shots)
    images, masks = rendered.episodes(rendered.source(), 1)
    levels = _LEVELS[: _LEVELS.index(work.last) + 1]
    config = SRPNetConfig(
        backbone=BackboneConfig(weights=None, levels=levels, trainable=True),
        levels=levels,
        fusion=MeanVector(),
    )
    model = config.build().eval().to(memory_format=torch.channels_last)
    image = images[0, :1].contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        features = model.extract(images[0])
        support = EncodedShots(features=features.select(slice(work.shots)), masks=masks[:, :-1])
        query = features.select(slice(work.shots, None))
        one_pass = measure(lambda: model.extract(image), 3).seconds
        print(f"{work.size} px, {work.shots}-shot, up to {work.last}, {torch.get_num_threads()} threads")
        print(f"backbone and pyramid, one image: {1e3 * one_pass:.1f} ms")
        seconds = {}
        for fusion in (MeanVector(), IterativeInference(steps=work.steps)):
            model.fusion = fusion
            state = model.encode_support(support)
            seconds[fusion.kind] = measure(lambda: model.encode_support(support)).seconds
            segment = measure(lambda s=state: model.segment(query, s)).seconds
            encode = 1e3 * seconds[fusion.kind]
            print(f"{fusion.kind}: support set {encode:.1f} ms, query {1e3 * segment:.1f} ms")
    alone = (seconds["iterative"] - seconds["mean"]) / one_pass
    print(f"IQI (N = {work.steps}) alone: {alone:.3f} of a backbone pass a support set (limit 0.1)")

    episodes = ImageEpisodes(
        support_images=images[:, :-1],
        support_masks=masks[:, :-1],
        query_images=images[:, -1],
        query_masks=masks[:, -1],
    )
    steps = {}
    for weight in (0.0, 1.0):
        trained = replace(config, support_weight=weight).build().to(memory_format=torch.channels_last)
        steps[weight] = measure(lambda m=trained: m.losses(episodes).total.backward(), 3).seconds
    print(f"training step without SRP {steps[0.0]:.2f} s, with SRP {steps[1.0]:.2f} s")


if __name__ == "__main__":
    main(tyro.cli(PrototypeWorkload))
