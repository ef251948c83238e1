"""Runs a study: trains its recipes on every fold with every seed, tests them, and prints the tables.

What is done is not done again and what was stopped goes on, so that the same command is given after a kill.
Trainings with one seed come before those with the next: stop when the intervals are narrow enough.

uv run python benchmarks/studies.py layer4 --seeds 0 1 2
uv run fewseg table results/layer4 --any-training

To choose parts, hold base classes out of the training and test on them alone:

uv run python benchmarks/studies.py combined --folds 1 --held-out 5 13 18 19
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from fewseg.cli import main as fewseg
from fewseg.engine.train import finished
from fewseg.recipes.recipe import Recipe
from fewseg.recipes.registry import recipe

Study = Literal["claims", "distillation", "layer4", "novel-pixels", "class-variety", "coco-mini", "combined"]

NAMES: dict[str, tuple[str, str]] = {
    "claims": (
        "voc5i_mini",
        "pfenet scl canet scl_canet srpnet_f srpnet sdaanet_baseline sdaanet_saam sdaanet_sdpm sdaanet",
    ),
    "distillation": (
        "voc5i_mini",
        "sdaanet_baseline sdaanet_saam sdaanet sdaanet_printed sdaanet_detached sdaanet_unit "
        "sdaanet_released",
    ),
    "layer4": (
        "voc5i_mini",
        "pfenet_whole_no_prior pfenet_whole_layer3 pfenet_whole_layer4 srpnet_whole_layer3 "
        "srpnet_whole_layer4",
    ),
    "novel-pixels": (
        "voc5i_mini",
        "pfenet pfenet_novel_ignored pfenet_novel_left_out scl scl_novel_ignored scl_novel_left_out",
    ),
    "class-variety": ("voc5i_mini", "pfenet pfenet_with_coco scl scl_with_coco"),
    "coco-mini": ("coco_mini", "matcher a_matcher pfenet scl srpnet fewseg"),
    "combined": (
        "voc5i_mini",
        "scl fewseg fewseg_no_attention fewseg_no_prototypes fewseg_no_self_guidance fewseg_novel_ignored "
        "fewseg_with_coco",
    ),
}
"""Of each study the data set, and what follows it in the names of the recipes."""

RECIPES = {study: tuple(f"{data}_{name}" for name in names.split()) for study, (data, names) in NAMES.items()}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run.

    Attributes:
        study: its name.
        folds: to train and test on.
        seeds: of the trainings; those of the first one come first.
        held_out: base classes that are held out of the training and tested in place of the novel ones.
        runs: folder for the checkpoints.
        results: folder for a folder of result files.
    """

    study: Annotated[Study, tyro.conf.Positional]
    folds: tuple[int, ...] = (0, 1, 2, 3)
    seeds: tuple[int, ...] = (0, 1, 2)
    held_out: tuple[int, ...] = ()
    runs: Path = Path("runs")
    results: Path = Path("results")


def main(options: Options) -> int:
    """Runs what is missing of a study and prints its tables; the exit status of the first that fails."""
    out = options.results / (options.study + ("-held-out" if options.held_out else ""))
    for seed, fold, name in product(options.seeds, options.folds, RECIPES[options.study]):
        chosen = recipe(name)
        if chosen.train is not None:
            status = _train_and_test(chosen, seed, fold, options, out)
        elif options.held_out:  # it holds nothing out
            continue
        else:
            status = fewseg(["evaluate", name, "--fold", str(fold), "--out", str(out)])
        if status:
            return status
    return fewseg(["table", str(out), "--any-training"])


def _train_and_test(chosen: Recipe, seed: int, fold: int, options: Options, out: Path) -> int:
    held_out = [str(c) for c in options.held_out]
    folder = options.runs / "-".join([f"{chosen.name}-fold{fold}-seed{seed}", *held_out])
    assert chosen.train is not None
    if not finished(folder, chosen.train.steps):
        words = ["--fold", str(fold), "--train.seed", str(seed), "--out", str(folder)]
        words += ["--train.held-out", *held_out] if held_out else []
        if status := fewseg(["train", chosen.name, *words]):
            return status
    classes = "held-out" if held_out else "novel"
    return fewseg(["evaluate", str(folder / "best.safetensors"), "--classes", classes, "--out", str(out)])


def run(words: Sequence[str]) -> int:
    """Runs the study that the words of a command name."""
    assert set(get_args(Study)) == set(RECIPES)
    return main(tyro.cli(Options, args=words))


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
