"""Results of made-up episodes, with their counts."""

import json

import numpy as np

from fewseg.engine.environment import Environment
from fewseg.engine.results import RunResult, sealed
from fewseg.metrics import EpisodeCounts
from fewseg.recipes.registry import RECIPES

NAMES = ["aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"]


def episode_table(class_id, inter, pred, true, *, seeds=1, ways=1, pixels=5000, query="", supports=()):
    """Rows of counts on masks of ``pixels``, in the order of their seeds and episodes."""
    inter, pred, true = (np.asarray(each, np.int64) for each in (inter, pred, true))
    n, union = len(inter), pred + true - inter
    place = np.arange(n) // ways
    episodes = n // seeds // ways
    return EpisodeCounts(
        seed=place // episodes,
        episode=place % episodes,
        class_id=np.resize(class_id, n),
        fg_inter=inter,
        fg_union=union,
        bg_inter=pixels - union,
        bg_union=pixels - inter,
        fg_pred=pred,
        fg_true=true,
        query=np.resize(np.array(query), n),
        supports=np.array(supports) if len(supports) else np.empty((n, 0), np.str_),
    )


def make_counts(fold=0, better=0.0, seeds=2, episodes=30, drawn_from=0):
    """Episodes of the two classes of a fold; the same at every call but for the quality of the prediction."""
    generator = np.random.default_rng([fold, drawn_from])
    n = seeds * episodes
    true = generator.integers(100, 1000, n)
    inter = (true * np.clip(generator.uniform(0.3, 0.7, n) + better, 0, 1)).astype(np.int64)
    pred = inter + generator.integers(0, 300, n)
    query = [f"q{drawn_from}-{i}" for i in range(n)]
    classes = [2 * fold + 1, 2 * fold + 2]
    return episode_table(classes, inter, pred, true, seeds=seeds, pixels=4000, query=query)


def make_result(counts, fold=0, **changes):
    classes = [2 * fold + 1, 2 * fold + 2]
    arguments = {
        "classes": classes,
        "method": "pfenet",
        "recipe": "voc5i_mini_pfenet",
        "dataset": "voc5i-mini",
        "fold": fold,
        "shots": 1,
        "fusion": "mean",
        "protocol": {"name": "mini", "label_size": "original"},
        "config": {"method": {"type": "PFENet", "channels": 64}},
        "class_split": {"novel": classes, "class_names": dict(enumerate(NAMES, start=1))},
        "wall_seconds": 1800.0,
        "training": {"config": {"steps": 100, "view": {"size": 241}, "held_out": [7]}, "fold": fold},
        "made_with": Environment(versions={"torch": "1"}, hardware="one core"),
    }
    for part, names in (("training", ("seed", "checkpoint")), ("config", ("size", "precision"))):
        own = dict(changes.get(part) or {})
        for name in names:
            if name in own:
                value = own.pop(name)
                fields = {"seed": "train_seed", "size": "sizes"}
                arguments[fields.get(name, name)] = (
                    value if name != "size" else (value,) if isinstance(value, int) else tuple(value)
                )
        changes = changes | ({part: own} if part in changes else {})
    recipe, method = changes.get("recipe"), changes.get("method", "pfenet").replace("-", "_")
    named = RECIPES[recipe]().variant.name if recipe in RECIPES else "" if recipe else method
    arguments["variant"] = named
    return RunResult.from_counts(counts, **(arguments | changes))


def write_sealed(path, stored):
    """Writes a result file of any content with the seal that belongs to it; its counts are there already."""
    path.write_text(json.dumps(sealed(without_seal(stored), path)))


def without_seal(stored):
    """The content of a result file alone."""
    return {key: value for key, value in stored.items() if key not in ("counts_sha256", "digest")}
