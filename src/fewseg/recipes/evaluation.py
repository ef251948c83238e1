"""``fewseg evaluate``: a checkpoint, or a recipe that needs none, on the novel classes of a fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fewseg.data.recorded import RecordedEpisodes
from fewseg.engine.checkpoint import Checkpoint, check_split, load_method
from fewseg.engine.config_json import config_from_json
from fewseg.engine.results import RunResult
from fewseg.engine.train_config import TrainConfig
from fewseg.fusion import AnyFusion, CrossGuided, MeanVector, ScoreAverage
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
        ValueError: the checkpoint or the manifests cannot be used or belong to another fold, nothing says
            which recipe, or ``shots``, ``episodes`` or ``seeds`` are given beside manifests, which set them.
    """
    if manifests and (shots or episodes is not None or seeds):
        raise ValueError("manifests set shots, episodes and seeds: leave --shots, --episodes and --seeds out")
    if episodes is not None and episodes < 1:
        raise ValueError(f"--episodes {episodes}: give one episode a seed at least")
    chosen, method, about = _load(what, recipe_name, backbone_weights)
    trained = about.class_split["fold"] if about.class_split else None
    wanted = fold if fold is not None else trained
    if wanted is None:
        raise ValueError(f"{what} does not say which fold it belongs to: give --fold")
    data = chosen.data(wanted, root)
    if about.digest:  # a recipe without training has seen no class
        check_split(about, data.split, Path(what))
    recorded = RecordedEpisodes(manifests, data.test) if manifests else None
    if recorded is not None:
        if recorded.fold != data.split.fold:
            raise ValueError(
                f"the manifests are of fold {recorded.fold}, the test is on fold {data.split.fold}: record "
                f"fold {data.split.fold} (`fewseg episodes {chosen.name} --fold {data.split.fold}`)"
            )
        shots = (recorded.shots,)
    evaluations = _lines(chosen, shots, fusions)
    protocol = chosen.protocol
    if episodes is not None or seeds:
        protocol = replace(
            protocol,
            name=f"{protocol.name} (changed)",
            episodes=protocol.episodes if episodes is None else episodes,
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
    """The recipe's own lines, or every wanted K under every wanted fusion.

    A fusion of the kind that the method's config has is the config's own, with its settings: released CGM
    differs from the paper's.
    """
    fusion = chosen.method.fusion
    lines = [replace(e, fusion=fusion) if e.fusion.kind == fusion.kind else e for e in chosen.evaluations]
    own = [e for e in lines if not shots or e.shots in shots]
    if not fusions and {e.shots for e in own} == set(shots or [e.shots for e in chosen.evaluations]):
        return own
    every: tuple[AnyFusion, ...] = (MeanVector(), ScoreAverage(), CrossGuided(), fusion)
    kinds = {str(f.kind): f for f in every}
    named = [kinds[name] for name in fusions] or [fusion]
    wanted = shots or sorted({e.shots for e in chosen.evaluations})
    return [Evaluation(shots=k, fusion=f) for k in wanted for f in named]


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
    if not isinstance(train, TrainConfig | None):
        raise ValueError(f"{what} has a header without a right training config: it was edited")
    return replace(chosen, method=about.config, train=train), method, about
