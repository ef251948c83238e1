"""HSNet's 4D convolutions on a CPU: the seconds of its encoder beside those that its FLOPs would take.

The floor is the FLOPs at the rate of a large 3x3 convolution or of a large matrix product, whichever this
machine does faster; the last column is the ratio. The correlations of the blocks and the decoder have lines
of their own.
Medians of one run: leave the machine alone.

uv run python benchmarks/hypercorrelation.py [--size 241] [--channels 128] [--repeat 5] [--threads 1]
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import tyro

from fewseg.backbones import BackboneConfig
from fewseg.methods.hsnet import HSNetConfig, blocks_of
from floor import convolution_rate, matmul_rate, measure, report


@dataclass(frozen=True, kw_only=True)
class Hypercorrelation:
    """What to measure.

    Attributes:
        size: side of the input, pixels; 8k + 1.
        channels: width of the encoder's output and of the decoder; a multiple of 8. The narrower, the farther
            from the floor: an eighth of them follows the largest correlations.
        pairs: of query and support that are scored at once.
        repeat: times a part is measured.
        threads: CPU threads; 0 leaves torch's own choice.
    """

    size: int = 241
    channels: int = 128
    pairs: int = 1
    repeat: int = 5
    threads: int = 0


@torch.no_grad()
def main(work: Hypercorrelation) -> None:
    if work.threads:
        torch.set_num_threads(work.threads)
    torch.manual_seed(0)
    backbone = BackboneConfig(weights=None, levels=blocks_of("resnet50"), output_stride=32)
    hsnet = HSNetConfig(backbone=backbone, channels=work.channels).build().eval()
    features = hsnet.extract(torch.rand(work.pairs, 3, work.size, work.size))
    masks = torch.zeros(work.pairs, work.size, work.size, dtype=torch.uint8)
    masks[:, : work.size // 2, : work.size // 2] = 1
    query, guides = hsnet.encode_query(features), hsnet.encode_shots(features, masks)
    levels = list(hsnet.hypercorrelations(query, guides))
    context = hsnet.encoder(iter(levels))
    parts = {
        "correlations": measure(lambda: list(hsnet.hypercorrelations(query, guides)), work.repeat),
        "4D convolutions": measure(lambda: hsnet.encoder(iter(levels)), work.repeat),
        "decoder": measure(lambda: hsnet.decoder(context), work.repeat),
    }
    rate = max(convolution_rate(torch.float32), matmul_rate(torch.float32, "cpu", side=1024))
    grids = " + ".join("x".join(map(str, level.shape[1:])) for level in levels)
    report(f"HSNet, {work.size} px, d = {work.channels}, {work.pairs} pairs: {grids}", parts, rate)


if __name__ == "__main__":
    main(tyro.cli(Hypercorrelation))
