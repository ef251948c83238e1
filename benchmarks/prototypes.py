"""What SRPNet's two parts cost: SRP at inference (nothing), IQI a support set beside a backbone pass.

Features are embedded once; iteration works on them alone. The ratios are of one run.

uv run python benchmarks/prototypes.py [--size 241] [--shots 5] [--steps 5] [--threads 1]
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from fewseg.backbones import BackboneConfig
from fewseg.fusion import IterativeInference, MeanVector
from fewseg.methods.srpnet import SRPNetConfig
from fewseg.types import EncodedShots
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
        threads: CPU threads; 0 leaves torch's own choice.
    """

    size: int = 241
    shots: int = 1
    steps: int = 5
    threads: int = 0


def flops(run) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@torch.no_grad()
def main(work: PrototypeWorkload) -> None:
    if work.threads:
        torch.set_num_threads(work.threads)
    rendered = Workload(size=work.size, shots=work.shots)
    images, masks = rendered.episodes(rendered.source(), 1)
    config = SRPNetConfig(backbone=BackboneConfig(weights=None, levels=_LEVELS, trainable=True))
    plain, regularised = (
        replace(config, support_weight=weight).build().eval().to(memory_format=torch.channels_last)
        for weight in (0.0, 1.0)
    )
    image = images[0, :1].contiguous(memory_format=torch.channels_last)
    features = regularised.extract(images[0])
    support = EncodedShots(features=features.select(slice(work.shots)), masks=masks[:, :-1])
    query = features.select(slice(work.shots, None))
    fusions = {
        "mean prototypes": MeanVector(),
        f"IQI, N = {work.steps}": IterativeInference(steps=work.steps),
    }

    one_pass = measure(lambda: regularised.extract(image), 3)
    print(f"{work.size} px, {work.shots}-shot, {torch.get_num_threads()} threads")
    print(f"backbone and pyramid, one image: {1e3 * one_pass.seconds:.1f} ms")
    for name, fusion in fusions.items():
        regularised.fusion = fusion
        state = regularised.encode_support(support)
        encode = measure(lambda: regularised.encode_support(support))
        segment = measure(lambda s=state: regularised.segment(query, s))
        ratio = encode.seconds / one_pass.seconds
        print(
            f"{name}: support set {1e3 * encode.seconds:.1f} ms = {ratio:.3f} of a backbone pass "
            f"({ratio / work.shots:.3f} a shot); query {1e3 * segment.seconds:.1f} ms"
        )

    regularised.fusion = plain.fusion = MeanVector()
    counted = [
        (
            flops(lambda m=m: m.encode_support(support)),
            flops(lambda m=m: m.segment(query, m.encode_support(support))),
        )
        for m in (plain, regularised)
    ]
    times = [
        measure(lambda m=m: m.segment(query, m.encode_support(support))).seconds for m in (plain, regularised)
    ]
    print(
        f"inference without SRP {counted[0][1] / 1e6:.2f} MFLOP, with SRP {counted[1][1] / 1e6:.2f} MFLOP; "
        f"time with / without {times[1] / times[0]:.2f}"
    )


if __name__ == "__main__":
    main(tyro.cli(PrototypeWorkload))
