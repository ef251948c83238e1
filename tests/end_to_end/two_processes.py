"""Trains a tiny head in two processes; each writes a digest of the weights that it ends with."""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import torch
import two_evaluating_processes as small

from fewseg.data.folds import FoldData
from fewseg.data.protocols import SYNTHETIC
from fewseg.data.synthetic import synthetic_5i
from fewseg.data.transforms import TrainView
from fewseg.engine.train_config import SGD, TrainConfig
from fewseg.methods.layers import PriorMap
from fewseg.methods.pfenet import PFENetConfig
from fewseg.recipes import run
from fewseg.recipes.recipe import Recipe


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    source, index = small.data(folder)
    data = FoldData(dataset="synthetic", source=source, split=synthetic_5i(0), train=index, test=index)
    backbone = replace(small.BACKBONE, levels=("layer2", "layer3"))
    prior = PriorMap(level="layer3", masked_input=None)
    recipe = Recipe(
        name="two_processes",
        method=PFENetConfig(backbone=backbone, channels=8, prior=prior, scales=(1.0, 0.5)),
        data=lambda fold, root: data,
        train=TrainConfig(
            steps=3, batch=1, view=TrainView(size=65), cached_views=1, min_area=64, optimiser=SGD(lr=0.1)
        ),
        size=65,
        protocol=replace(SYNTHETIC, episodes=2),
    )
    kept = []
    build = run.build_method
    run.build_method = lambda recipe: kept.append(build(recipe)) or kept[-1]
    run.train_recipe(recipe, data, folder / "run", progress=False, devices=2)
    values = b"".join(p.detach().numpy().tobytes() for p in kept[0].parameters() if p.requires_grad)
    rank = torch.distributed.get_rank()
    (folder / f"rank{rank}.txt").write_text(hashlib.sha256(values).hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
