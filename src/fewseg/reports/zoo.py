"""``fewseg zoo``: every method with what it adds, its size, its cost, and published and measured values."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from fewseg.methods.base import MethodConfig
from fewseg.methods.registry import METHODS, list_methods, method_config
from fewseg.recipes.datasets import voc5i_mini
from fewseg.recipes.recipe import RECIPES, Recipe
from fewseg.recipes.registry import recipe
from fewseg.reports.frame import Results, load_results
from fewseg.reports.options import ZooOptions
from fewseg.reports.published import published_values
from fewseg.reports.tables import rich_table
from fewseg.types import EncodedShots

SHOTS = (1, 5)
_WIDE = 120
"""Columns of a terminal below which what a method adds stands under the table."""

CAPTION = (
    "parameters and floating point operations are of the recipe on the small set, for one query and one "
    "support image of 241 px, features included; published: mIoU in percent on PASCAL-5i with 1 / 5 shots; "
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
    """What a method adds, in one line: the first of its file's docstring, without the method's name."""
    documented = sys.modules[method_config(name).method.__module__].__doc__ or ""
    first = documented.strip().partition("\n")[0].replace("``", "")
    label, colon, rest = first.partition(": ")
    return rest if colon and len(label) < 20 else first


@lru_cache(maxsize=1)
def small_recipes() -> dict[str, Recipe]:
    """The small-set recipe of each method's variant of the same name."""
    recipes = [recipe(name) for name in RECIPES]
    of_variant = {candidate.variant.name: candidate for candidate in recipes if candidate.data is voc5i_mini}
    by_method = {name: of_variant.get(name.replace("-", "_")) for name in METHODS}
    return {name: candidate for name, candidate in by_method.items() if candidate is not None}


def cost(config: MethodConfig, size: int) -> Cost:
    """Counts the operations of one query under one support image, both of ``size`` x ``size`` pixels.

    The weights are random: they change no count.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = replace(config, backbone=replace(config.backbone, weights=None)).build().eval()
        images = torch.rand(2, 3, size, size)
    masks = torch.zeros(1, 1, size, size, dtype=torch.uint8)
    masks[..., size // 4 : size // 2, size // 4 : 3 * size // 4] = 1
    with torch.no_grad():
        with FlopCounterMode(display=False) as of_support:
            state = method.encode_support(EncodedShots(features=method.extract(images[:1]), masks=masks))
        with FlopCounterMode(display=False) as of_query:
            method.segment(method.extract(images[1:]), state)
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    return Cost(
        trained=trained,
        frozen=sum(p.numel() for p in method.parameters()) - trained,
        query=of_query.get_total_flops(),
        support=of_support.get_total_flops(),
    )


def published(name: str, dataset: str = "pascal-5i") -> dict[int, float]:
    """Printed mIoU in percent of a method by K, from the row with its label if a paper has one."""
    chosen = small_recipes().get(name)
    if chosen is None or not chosen.variant.printed:
        return {}
    rows = chosen.variant.printed
    row = next((row for row in rows if row.row == chosen.variant.label), rows[0])
    place = (row.paper, row.table_for(dataset), row.row, dataset, "mean")
    return {
        value.shots: value.percent
        for value in published_values()
        if (value.paper, value.table, value.row, value.dataset, value.column) == place
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


def _pair(values: dict[int, float]) -> str:
    return " / ".join(f"{values[k]:.1f}" if k in values else "-" for k in SHOTS) if values else "-"


def zoo_cells(names: Sequence[str], results: Results | None, *, costs: bool = True) -> pd.DataFrame:
    """The table as text, one row per method."""
    rows = []
    for name in names:
        chosen, row = small_recipes().get(name), {"method": name}
        if chosen is not None and costs:
            total = cost(chosen.method, chosen.size)
            row["trained"], row["frozen"] = (f"{n / 1e6:.2f} M" for n in (total.trained, total.frozen))
            row["query"], row["support"] = (f"{n / 1e9:.1f} G" for n in (total.query, total.support))
        row["published"] = _pair(published(name))
        row["measured"] = _pair(measured(name, results)) if results is not None else "-"
        row["what it adds"] = adds(name)
        rows.append(row)
    return pd.DataFrame(rows).fillna("-")


def run(options: ZooOptions, console: Console) -> None:
    """Prints the table."""
    names = [name for name in list_methods() if not options.methods or name in options.methods]
    for name in options.methods:
        method_config(name)  # an unknown one raises, with the nearest names
    results = load_results(options.results) if options.results.is_dir() else None
    cells = zoo_cells(names, results, costs=options.costs)
    lines = cells.pop("what it adds") if console.width < _WIDE else []
    table = rich_table(cells, "Methods", CAPTION)
    table.columns[-1].justify = "right" if len(lines) else "left"
    console.print(table)
    for name, line in zip(cells["method"], lines, strict=False):
        console.print(f"[bold]{name}[/bold]: {line}")
