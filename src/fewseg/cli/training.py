"""``fewseg train``, ``evaluate``, ``episodes``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, make_dataclass, replace
from typing import Any

import tyro
from rich.console import Console

from fewseg.recipes.options import EpisodesOptions, EvaluateOptions, TrainOptions


def train_options(words: Sequence[str], console: Console) -> TrainOptions:
    """Parses the words after ``train``; the recipe's configs decide which options exist."""
    from fewseg.engine.config_json import with_parts
    from fewseg.recipes.registry import RECIPES, recipe

    if not words or words[0].startswith("-"):
        console.out("fewseg train RECIPE [options]; recipes:\n  " + "\n  ".join(RECIPES), highlight=False)
        if not {"-h", "--help"} & set(words):
            raise ValueError("no recipe given: name one of those above")
        raise SystemExit(0)
    chosen = recipe(words[0])
    if chosen.train is None:
        raise ValueError(f"{chosen.name} has nothing to train: `fewseg evaluate {chosen.name}`")
    remaining, parts = _take_parts(words[1:])
    chosen = replace(chosen, **with_parts({"method": chosen.method, "train": chosen.train}, parts))
    kinds = {"method": type(chosen.method), "train": type(chosen.train)}
    command_type = _with_types(TrainOptions, kinds)
    default = command_type(recipe=chosen.name, method=chosen.method, train=chosen.train)
    command: TrainOptions = tyro.cli(
        command_type,
        config=(tyro.conf.AvoidSubcommands,),
        prog=f"fewseg train {chosen.name}",
        args=remaining,
        default=default,
    )
    return command


def train(options: TrainOptions, console: Console) -> None:
    """Trains a recipe."""
    from fewseg.recipes.run import train_with

    path = train_with(options)
    console.print(f"checkpoint: {path}\ntest it: fewseg evaluate {path}")


def _take_parts(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Takes every ``--part NAME=CLASS`` out of the words: they decide which options there are."""
    remaining, parts = list(words), []
    while "--part" in remaining:
        place = remaining.index("--part")
        if place + 1 == len(remaining):
            raise ValueError("--part needs a value NAME=CLASS, such as --part method.prior=NoPrior")
        parts.append(remaining[place + 1])
        del remaining[place : place + 2]
    return remaining, parts


def _with_types(command: type, kinds: dict[str, type]) -> type:
    """The command with its ``Any`` fields typed, so that tyro makes options of them."""
    fields: list[Any] = [(name, kind, field()) for name, kind in kinds.items()]
    return make_dataclass(
        command.__name__,
        fields,
        bases=(command,),
        kw_only=True,
        frozen=True,
        namespace={"__doc__": command.__doc__},
    )


def evaluate(options: EvaluateOptions, console: Console) -> None:
    """Tests a model and prints its tables."""
    from fewseg.recipes import evaluation
    from fewseg.reports.tables import print_results

    print_results(evaluation.evaluate(options), console)
    console.print(f"result files: {options.out}")


def episodes(options: EpisodesOptions, console: Console) -> None:
    """Writes test episodes."""
    from fewseg.data.episodes import EpisodeSampler, record
    from fewseg.recipes.registry import recipe

    chosen = recipe(options.recipe)
    data = chosen.read(options.fold, options.root)
    sampler = EpisodeSampler(data.test, data.split, chosen.protocol, options.shots, ways=options.ways)
    for path in record(sampler, options.out):
        console.out(f"written: {path}", highlight=False)
