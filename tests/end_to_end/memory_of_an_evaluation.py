"""Evaluates with a budget of bytes and prints by how much the process's own memory grew at most."""

import sys
import threading
from dataclasses import replace
from pathlib import Path

import several_processes as small
import torch
import torch.nn.functional as F

from fewseg.backbones import BackboneConfig, ResNetShape
from fewseg.data.episodes import EpisodeSampler
from fewseg.data.index import build_index
from fewseg.data.synthetic import SyntheticSource, synthetic_5i
from fewseg.engine.evaluate import Line
from fewseg.ops import memory as heap
from fewseg.ops.memory import own_memory
from fewseg.types import Guides

WIDE = ResNetShape(layers=(1, 1, 1, 1), channels=(8, 1024, 16, 16), stem_width=8)
"""Features of an image, and what ``KeyedCells`` keeps of it, take 1024 x 17 x 17 x 4 bytes: 1.1 MiB."""


class KeyedCells(small.Cells):
    """Keeps a support image's features as keys, so that there is much to keep; scores by products."""

    def encode_shots(self, features, masks):
        guides = super().encode_shots(features, masks)
        keys = features["layer2"].flatten(2).transpose(1, 2).unsqueeze(1).contiguous()
        return Guides(maps=guides.maps, keys=keys, valid=guides.valid.new_ones(keys.shape[:3]))

    def score(self, query, guides, prior=None):
        vectors = F.normalize(guides["vectors"], dim=2)
        return torch.einsum("bchw,njc->njhw", query.mid, vectors)


class OwnMemory(threading.Thread):
    """The most that the process's own memory, without the files that it has mapped, takes meanwhile."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self._done = own_memory(), threading.Event()

    def run(self) -> None:
        while not self._done.wait(0.002):
            self.most = max(self.most, own_memory())

    def stop(self) -> None:
        self._done.set()
        self.join()


def main(folder: Path, memory: int) -> None:
    heap.SLACK = 8 << 20
    small.SIZE = 129
    small.BACKBONE = BackboneConfig(name="resnet18", weights=None, levels=("layer2",), shape=WIDE)
    source = SyntheticSource(140, small.SIZE)
    index = build_index(source, cache_dir=folder / "index", workers=1, progress=False)
    protocol = replace(small.SYNTHETIC, episodes=1, seeds=(0,))
    evaluator = small.evaluator(KeyedCells(), source, folder, memory=memory)
    evaluator.store.ensure(source.ids, progress=False)
    evaluator.run([Line(episodes=EpisodeSampler(index, synthetic_5i(0), protocol, 1))])
    before = own_memory()
    watch = OwnMemory()
    watch.start()
    everything = EpisodeSampler(index, synthetic_5i(0), replace(protocol, episodes=150), 3)
    evaluator.run([Line(episodes=everything)])
    watch.stop()
    print(watch.most - before)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
