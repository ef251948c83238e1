"""Time of a test episode: data, backbone, support, head, metric, beside the floor.

Also what the same episode costs when the image has been through the backbone and the support is encoded.

uv run python benchmarks/episode.py [--method scl-pfenet] [--shots 5] [--size 473]
"""

from __future__ import annotations

import torch
import tyro

from fewseg.metrics.counts import count
from fewseg.types import EncodedShots
from floor import matmul_rate, measure, report
from workload import Workload


@torch.no_grad()
def main(work: Workload) -> None:
    model, source = work.build().eval(), work.source()
    images, masks = work.episodes(source, 1)
    autocast = work.autocast()
    with autocast:
        features = model.extract(images[0])
        support = EncodedShots(features=features.select(slice(work.shots)), masks=masks[:, :-1])
        query = features.select(slice(work.shots, None))
        state = model.encode_support(support)
        logits = model.segment(query, state)
        prediction = logits.argmax(dim=1).to(torch.uint8)
        parts = {
            "data": measure(lambda: work.episodes(source, 1), 3),
            "backbone": measure(lambda: model.extract(images[0]), 3),
            "support": measure(lambda: model.encode_support(support), 3),
            "head": measure(lambda: model.segment(query, state)),
            "metric": measure(lambda: count(prediction, masks[:, -1])),
        }
    name = (
        f"{work.method}, {work.shots}-shot, fusion {model.fusion.kind}, {work.size} px, d = {work.channels}"
    )
    rate = matmul_rate(work.dtype, work.device)
    report(f"plain episode: {name}", parts, rate)
    cached = {k: parts[k] for k in ("head", "metric")}
    report(f"the same with features and support state cached: {name}", cached, rate)
    whole, kept = (sum(m.seconds for m in p.values()) for p in (parts, cached))
    print(f"ratio plain / cached: {whole / kept:.1f}")


if __name__ == "__main__":
    main(tyro.cli(Workload))
