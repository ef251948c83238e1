"""``fewseg zoo``: every method with what it adds, its size, its cost, and published and measured values."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fewseg.methods.base import FewShotSegmenter, MethodConfig
from fewseg.methods.registry import METHODS, list_methods, method_config
from fewseg.recipes.datasets import voc5i_mini
from fewseg.recipes.recipe import RECIPES, Recipe
from fewseg.recipes.registry import recipe
from fewseg.reports.frame import Results, load_results
from fewseg.reports.options import ZooOptions
from fewseg.reports.published import published_values
from fewseg.reports.tables import rich_table
from fewseg.types import EncodedShots, Features

SHOTS = (1, 5)
_WIDE = 120
"""Columns of a terminal below which what a method adds stands under the table."""

CAPTION = (
    "parameters and floating point operations are of the recipe on the small set, for one query and one "
    "support image of 241 px, features included; published: mIoU in percent on PASCAL-5i with 1 and 5 shots; "
    "measured: on voc5i-mini after minutes of training, never to be compared with the published ones"
)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a method costs at one input size.

    Attributes:
        trained: parameters that training changes.
        frozen: the others, those of a frozen backbone.
        query: floating point operations of one query, its features included.
        support: those of a support set of one image, its features included.
    """

    trained: int
    frozen: int
    query: int
    support: int


def adds(name: str) -> str:
    """What a method adds: the first line of its file's docstring, without the label before the colon."""
    documented = sys.modules[method_config(name).method.__module__].__doc__ or ""
    first = documented.strip().partition("\n")[0].replace("``", "").removesuffix(".")
    return first.partition(": ")[2] or first


@lru_cache(maxsize=1)
def small_recipes() -> dict[str, Recipe]:
    """The small-set recipe of each method's variant of the same name."""
    recipes = [recipe(name) for name in RECIPES]
    of_variant = {candidate.variant.name: candidate for candidate in recipes if candidate.data is voc5i_mini}
    by_method = {name: of_variant.get(name.replace("-", "_")) for name in METHODS}
    return {name: candidate for name, candidate in by_method.items() if candidate is not None}


def cost(config: MethodConfig, size: int) -> Cost:
    """Counts the operations of one query under one support image, both of ``size`` x ``size`` pixels.

    Weights and features are random: they change no count. What a method computes once and keeps, whatever
    the support set, is not counted.
    """
    masks = torch.zeros(1, 1, size, size, dtype=torch.uint8)
    masks[..., size // 4 : size // 2, size // 4 : 3 * size // 4] = 1
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        method = replace(config, backbone=replace(config.backbone, weights=None)).build().eval()
        features, extracted = _features(method, torch.rand(1, 3, size, size))
        shots = EncodedShots(features=features, masks=masks)
        method.encode_support(shots)
        with FlopCounterMode(display=False) as of_support:
            state = method.encode_support(shots)
        with FlopCounterMode(display=False) as of_query:
            method.segment(features, state)
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    return Cost(
        trained=trained,
        frozen=sum(p.numel() for p in method.parameters()) - trained,
        query=extracted + of_query.get_total_flops(),
        support=extracted + of_support.get_total_flops(),
    )


def _features(method: FewShotSegmenter, images: Tensor) -> tuple[Features, int]:
    """Random features in the shapes of those of some images, and the operations that extracting them takes.

    Nothing is extracted: most of a method's operations are its backbone's, and shapes tell their number.
    """
    with FlopCounterMode(display=False) as counter:
        shapes = copy.deepcopy(method).to("meta").extract(images.to("meta"))
    maps = {name: torch.rand(map_.shape) for name, map_ in shapes.maps.items()}
    return Features(maps=maps, image_size=shapes.image_size), counter.get_total_flops()


def published(name: str, dataset: str = "pascal-5i") -> dict[int, float]:
    """Printed mIoU in percent of a method by K, from the row with its label if a paper has one.

    A paper may print one shot and five in different tables.
    """
    chosen = small_recipes().get(name)
    if chosen is None or not chosen.variant.printed:
        return {}
    rows = chosen.variant.printed
    row = next((row for row in rows if row.row == chosen.variant.label), rows[0])
    return printed_means(row.paper, row.row, dataset)


def printed_means(paper: str, row: str, dataset: str = "pascal-5i") -> dict[int, float]:
    """The mean mIoU in percent by K that a paper prints for a method, whichever its table."""
    place = (paper, row, dataset, "mean")
    return {
        value.shots: value.percent
        for value in published_values()
        if (value.paper, value.row, value.dataset, value.column) == place
    }


def measured(name: str, results: Results) -> dict[int, float]:
    """Mean mIoU in percent on the small set by K, over all four folds and the training seeds that have them.

    Several shots are joined by the method's own fusion.
    """
    chosen, frame = small_recipes().get(name), results.frame
    if chosen is None or frame.empty:
        return {}
    frame = frame[(frame.recipe == chosen.name) & (frame.ways == 1) & (frame.on == "query")]
    frame = frame[~frame.multi_scale.astype(bool)]
    config: Any = chosen.method
    fusion, scores = config.fusion.kind, {}
    for shots in SHOTS:
        of_shots = frame[frame.shots == shots]
        exact = of_shots[of_shots.fusion == fusion]
        if exact.empty and shots == 1 and fusion != "iterative":
            exact = of_shots[of_shots.fusion != "iterative"]  # with one shot the others are the same
        seeds = [
            part.miou.mean()
            for _, part in exact.groupby("train_seed", dropna=False)
            if part.fold.nunique() == 4
        ]
        if seeds:
            scores[shots] = 100 * sum(seeds) / len(seeds)
    return scores


def score_cell(values: dict[int, float]) -> str:
    """Scores of one and of five shots as text, "-" where there are none."""
    return ", ".join(f"{values[k]:.1f}" if k in values else "-" for k in SHOTS) if values else "-"


def zoo_cells(names: Sequence[str], results: Results | None, *, costs: bool = True) -> pd.DataFrame:
    """The table as text, one row per method."""
    rows = []
    for name in names:
        chosen, row = small_recipes().get(name), {"method": name}
        if chosen is not None and costs:
            total = cost(chosen.method, chosen.size)
            row["trained"], row["frozen"] = (f"{n / 1e6:.2f} M" for n in (total.trained, total.frozen))
            row["query"], row["support"] = (f"{n / 1e9:.1f} G" for n in (total.query, total.support))
        row["published"] = score_cell(published(name))
        row["measured"] = score_cell(measured(name, results)) if results is not None else "-"
        row["what it adds"] = adds(name)
        rows.append(row)
    return pd.DataFrame(rows).fillna("-")


def run(options: ZooOptions, console: Console) -> None:
    """Prints the table."""
    names = [name for name in list_methods() if not options.methods or name in options.methods]
    for name in options.methods:
        method_config(name)  # an unknown one raises, with the nearest names
    results = load_results(options.results) if options.results.is_dir() else None
    with console.status("counting parameters and operations; --no-costs leaves them out"):
        cells = zoo_cells(names, results, costs=options.costs)
    lines = cells.pop("what it adds") if console.width < _WIDE else []
    table = rich_table(cells, "Methods", CAPTION)
    table.columns[-1].justify = "right" if len(lines) else "left"
    console.print(table)
    for name, line in zip(cells["method"], lines, strict=False):
        console.print(f"[bold]{name}[/bold]: {line}")
