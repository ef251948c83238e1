"""Time of a training step: data, backbone, head forward, head backward, optimiser, beside the floor.

uv run python benchmarks/train_step.py [--method scl-pfenet] [--size 241] [--bf16]
"""

from __future__ import annotations

import torch
import tyro

from fewseg.engine.train_config import SGD
from fewseg.types import EncodedShots, ImageEpisodes
from floor import matmul_rate, measure, report
from workload import Workload


def main(work: Workload) -> None:
    model, source = work.build().train(), work.source()
    optimiser = SGD().build([p for p in model.parameters() if p.requires_grad])
    images, masks = work.episodes(source, work.batch)
    episodes = ImageEpisodes(
        support_images=images[:, :-1],
        support_masks=masks[:, :-1],
        query_images=images[:, -1],
        query_masks=masks[:, -1],
    )
    with work.autocast():
        encoded = model.encode_episodes(episodes)
    assert isinstance(encoded.support, EncodedShots)

    def forward() -> torch.Tensor:
        with work.autocast():
            return model.training_losses(encoded).total

    def backbone() -> object:
        with work.autocast():
            return model.encode_episodes(episodes)

    def both() -> None:
        forward().backward()

    data = measure(lambda: work.episodes(source, work.batch), 3)
    trunk, ahead, whole = measure(backbone, 3), measure(forward), measure(both)
    update = measure(optimiser.step)
    back = type(whole)(whole.seconds - ahead.seconds, whole.flops - ahead.flops)
    parts = {
        "data": data,
        "backbone": trunk,
        "head forward": ahead,
        "head backward": back,
        "optimiser": update,
    }
    title = (
        f"training step: {work.method}, {work.batch} x {work.shots}-shot, {work.size} px, d = {work.channels}"
    )
    report(title, parts, matmul_rate(work.dtype, work.device))


if __name__ == "__main__":
    main(tyro.cli(Workload))
