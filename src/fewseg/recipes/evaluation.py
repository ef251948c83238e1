"""``fewseg evaluate``: a checkpoint, or a recipe that needs none, on the novel classes of a fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fewseg.data.recorded import RecordedEpisodes
from fewseg.engine.checkpoint import Checkpoint, check_split, load_method
from fewseg.engine.config_json import config_from_json
from fewseg.engine.results import RunResult
from fewseg.fusion import CrossGuided, Fusion, MeanVector, ScoreAverage
from fewseg.methods.base import FewShotSegmenter
from fewseg.recipes.recipe import Evaluation, Recipe
from fewseg.recipes.registry import RECIPES, recipe
from fewseg.recipes.run import build_method, evaluate_recipe


def evaluate(
    what: str,
    *,
    recipe_name: str | None = None,
    fold: int | None = None,
    root: Path | None = None,
    out: Path = Path("results"),
    shots: Sequence[int] = (),
    fusions: Sequence[str] = (),
    episodes: int | None = None,
    seeds: Sequence[int] = (),
    backbone_weights: str | None = None,
    manifests: Sequence[Path] = (),
    progress: bool = True,
) -> list[RunResult]:
    """Evaluates and writes one result file for each line of the recipe.

    Args:
        what: path of a checkpoint, or the name of a recipe without training.
        recipe_name: whose data, protocol and lines to use; the checkpoint's own by default.
        fold: the checkpoint's own by default.
        root: folder of the data set.
        out: folder for the result files.
        shots: only these K; all of the recipe's by default.
        fusions: only these (``kind`` of a fusion), for each K; the recipe's by default.
        episodes: episodes a seed; the protocol's by default.
        seeds: the protocol's by default.
        backbone_weights: weights of the frozen trunk, where they moved.
        manifests: recorded episodes to replay, one file a seed; they set protocol and shots.
        progress: show bars.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: the checkpoint cannot be used, belongs to another fold, or nothing says which recipe.
    """
    chosen, method, about = _load(what, recipe_name, backbone_weights)
    trained = about.class_split["fold"] if about.class_split else None
    wanted = fold if fold is not None else trained
    if wanted is None:
        raise ValueError(f"{what} does not say which fold it belongs to: give --fold")
    data = chosen.data(wanted, root)
    check_split(about, data.split, Path(what))
    recorded = RecordedEpisodes(manifests, data.test) if manifests else None
    if recorded is not None:
        shots = (recorded.shots,)
    evaluations = _lines(chosen, shots, fusions)
    protocol = chosen.protocol
    if episodes is not None or seeds:
        protocol = replace(
            protocol,
            name=f"{protocol.name} (changed)",
            episodes=episodes or protocol.episodes,
            seeds=tuple(seeds) or protocol.seeds,
        )
    if recorded is not None:
        protocol = recorded.protocol
    return evaluate_recipe(
        replace(chosen, protocol=protocol),
        method,
        about,
        data,
        out,
        evaluations=evaluations,
        recorded=recorded,
        progress=progress,
    )


def _lines(chosen: Recipe, shots: Sequence[int], fusions: Sequence[str]) -> list[Evaluation]:
    """The recipe's own lines, or every wanted K under every wanted fusion."""
    own = [e for e in chosen.evaluations if not shots or e.shots in shots]
    if not fusions and {e.shots for e in own} == set(shots or [e.shots for e in chosen.evaluations]):
        return own
    every: tuple[Fusion, ...] = (MeanVector(), ScoreAverage(), CrossGuided())
    kinds = {str(fusion.kind): fusion for fusion in every}
    named = [kinds[name] for name in fusions] or [chosen.method.fusion]
    wanted = shots or sorted({e.shots for e in chosen.evaluations})
    return [Evaluation(shots=k, fusion=fusion) for k in wanted for fusion in named]


def _load(
    what: str, recipe_name: str | None, backbone_weights: str | None
) -> tuple[Recipe, FewShotSegmenter, Checkpoint]:
    if what in RECIPES and not Path(what).exists():
        chosen = recipe(what)
        if chosen.train is not None:
            raise ValueError(
                f"{what} must be trained first (`fewseg train {what}`); then give its checkpoint"
            )
        return chosen, build_method(chosen).eval(), Checkpoint(config=chosen.method)
    if not Path(what).exists() and not Path(what).suffix:
        recipe(what)  # raises, with the near names
    method, about = load_method(Path(what), backbone_weights=backbone_weights)
    name = recipe_name or about.recipe
    if not name:
        raise ValueError(f"{what} does not name its recipe: give --recipe, one of {', '.join(RECIPES)}")
    chosen = recipe(name)
    if type(chosen.method) is not type(about.config):
        raise ValueError(
            f"{what} is a checkpoint of {type(about.config).__name__}, but {name} is a recipe of "
            f"{type(chosen.method).__name__}: give the recipe it belongs to"
        )
    trained = about.training.get("config")
    train = chosen.train if trained is None else config_from_json(trained)
    return replace(chosen, method=about.config, train=train), method, about
