"""Evaluates with a budget of bytes and prints by how much the process's memory grew at most."""

import sys
from dataclasses import replace
from pathlib import Path

import two_evaluating_processes as small

from fewseg.backbones import BackboneConfig, ResNetShape
from fewseg.data.episodes import EpisodeSampler
from fewseg.data.index import build_index
from fewseg.data.synthetic import SyntheticSource, synthetic_5i
from fewseg.ops import heap

WIDE = ResNetShape(layers=(1, 1, 1, 1), channels=(8, 1024, 16, 16), stem_width=8)
"""An image's features take 1024 x 17 x 17 x 4 bytes: 1.1 MiB."""


def peak() -> int:
    """Bytes; of this program, where ``getrusage`` would hand down its parent's."""
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def main(folder: Path, memory: int) -> None:
    heap.SLACK = 8 << 20
    small.SIZE = 129
    small.BACKBONE = BackboneConfig(name="resnet18", weights=None, levels=("layer2",), shape=WIDE)
    source = SyntheticSource(140, small.SIZE)
    index = build_index(source, cache_dir=folder / "index", workers=1, progress=False)
    protocol = replace(small.SYNTHETIC, episodes=1, seeds=(0,))
    evaluator = small.evaluator(small.Cells(), source, folder, memory=memory)
    evaluator.store.ensure(source.ids, progress=False)
    evaluator.run(EpisodeSampler(index, synthetic_5i(0), protocol, 1))
    before = peak()
    everything = EpisodeSampler(index, synthetic_5i(0), replace(protocol, episodes=150), 3)
    evaluator.run(everything)
    print(peak() - before)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
