"""Where does training saturate? mIoU on held-out base classes and on novel classes against the steps.

Every point is a training of its own, whose learning rate falls to its end, with a width of the head and a
side of the input. Choose by the held-out classes alone. What is done is not done again and what was stopped
goes on.

uv run python benchmarks/learning_curve.py --fold 1 --held-out 5 13 18 19
uv run python benchmarks/learning_curve.py --no-train
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pandas as pd
import tyro
from rich.console import Console

from fewseg.engine.train import finished
from fewseg.recipes.evaluation import evaluate
from fewseg.recipes.options import EvaluateOptions
from fewseg.recipes.registry import recipe
from fewseg.recipes.run import train_recipe
from fewseg.reports.frame import Results
from fewseg.reports.numbers import with_interval
from fewseg.reports.tables import rich_table, some_results


@dataclass(frozen=True, kw_only=True)
class Options:
    """The points of the curves.

    Attributes:
        recipes: one curve each, for each width and side.
        steps: lengths of the trainings.
        channels: d, widths of the head.
        sizes: sides of the input, pixels.
        fold: that is trained and tested on.
        held_out: base classes that are held out of the training.
        seed: of the trainings.
        shots: numbers of shots that are tested.
        runs: folder for the checkpoints.
        results: folder for the result files.
        train: train and test what is missing; otherwise the table of what is there is printed alone.
    """

    recipes: tuple[str, ...] = ("voc5i_mini_pfenet", "voc5i_mini_scl")
    steps: tuple[int, ...] = (375, 750, 1500, 3000, 6000)
    channels: tuple[int, ...] = (96, 256)
    sizes: tuple[int, ...] = (241, 321)
    fold: int = 1
    held_out: tuple[int, ...] = (5, 13, 18, 19)
    seed: int = 0
    shots: tuple[int, ...] = (1,)
    runs: Path = Path("runs/learning-curve")
    results: Path = Path("results/learning-curve")
    train: bool = True


def main(options: Options) -> None:
    """Trains and tests the points, the shortest trainings first, and prints the table."""
    if options.train:
        for point in product(options.steps, options.sizes, options.channels, options.recipes):
            train_and_test(options, *point)
    cells = curves(some_results(options.results))
    Console().print(rich_table(cells, "mIoU in percent with 95 % intervals, by steps of training", words=4))


def train_and_test(options: Options, steps: int, size: int, channels: int, name: str) -> None:
    """One point: a training, tested on its held-out and on the novel classes."""
    own = recipe(name)
    assert own.train is not None
    changes = {"steps": steps, "seed": options.seed, "held_out": options.held_out}
    train = replace(own.train, view=replace(own.train.view, size=size), **changes)
    method = replace(own.method, channels=channels)  # type: ignore[call-arg]
    chosen = replace(own, method=method, train=train, size=size)
    folder = options.runs / f"{name}-fold{options.fold}-seed{options.seed}-d{channels}-{size}px-{steps}"
    if not finished(folder, steps):
        train_recipe(chosen, chosen.read(options.fold), folder)
    for classes in ("held-out", "novel"):
        evaluate(
            EvaluateOptions(
                what=str(folder / "best.safetensors"),
                classes=classes,
                shots=options.shots,
                sizes=(size,),
                out=options.results,
            )
        )


def curves(results: Results) -> pd.DataFrame:
    """One row a curve, one column a number of steps; "-" where there is no result."""
    rows = []
    for key, run in results.runs.items():
        held_out = "held-out" if run.dataset.endswith("held-out base classes") else "novel"
        width, steps = run.config["method"]["channels"], run.training["config"]["steps"]
        curve = f"{run.recipe} {run.fusion}, {run.shots}-shot", f"d = {width}", f"{run.sizes_text} px"
        rows.append((held_out, *curve, str(run.train_seed), steps, with_interval(results.estimate(key))))
    names = ["classes", "method", "width", "size", "seed"]
    frame = pd.DataFrame(rows, columns=[*names, "steps", "miou"])
    wide = frame.pivot(index=names, columns="steps", values="miou").fillna("-").reset_index()
    return wide.rename(columns=str)


if __name__ == "__main__":
    main(tyro.cli(Options))
