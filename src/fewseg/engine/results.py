"""The layout of a result file: plain values in, checked plain values out."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fewseg.data.folds import ClassSplit, coco_20i, pascal_5i
from fewseg.data.protocols import stored_protocol
from fewseg.engine.environment import Environment, environment
from fewseg.metrics import EpisodeCounts, bootstrap_miou, dice, fb_iou, miou, per_class, std_over_seeds
from fewseg.ops.files import atomic_path, atomic_write_text

SCHEMA = 3
"""1: without ``on``; it was the query then. 2: without the seal."""

SEALED = 3
"""The first schema with a seal."""

SEAL: dict[str, tuple[type, ...]] = {"counts_sha256": (str,), "digest": (str,)}
"""Keys of a result file that are about the file; see ``result_seal``."""

_NUMBER = (int, float)
_KEYS: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "method": (str,),
    "recipe": (str,),
    "dataset": (str,),
    "fold": (int,),
    "ways": (int,),
    "shots": (int,),
    "fusion": (str,),
    "on": (str,),
    "protocol": (dict,),
    "protocol_digest": (str,),
    "seeds": (list,),
    "miou_mean": _NUMBER,
    "miou_std": (int, float, type(None)),
    "miou_ci95": (list,),
    "fb_iou_mean": _NUMBER,
    "dice_mean": _NUMBER,
    "config": (dict,),
    "class_split": (dict,),
    "versions": (dict,),
    "hardware": (str,),
    "wall_seconds": _NUMBER,
    "training": (dict,),
}
_SEED_KEYS: dict[str, tuple[type, ...]] = {
    "seed": (int,),
    "episodes": (int,),
    "miou": _NUMBER,
    "fb_iou": _NUMBER,
    "dice": _NUMBER,
    "per_class": (dict,),
}


def as_json(value: Any) -> Any:
    """Turns configs into what JSON gives back: mappings, lists, strings, numbers, booleans, None.

    A dataclass becomes its fields and ``type``, its class name, so that a part without fields is still told
    from another. Keys become strings; sets are sorted.

    Raises:
        ValueError: a value of another type, or a number that is not finite.
    """
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: as_json(getattr(value, f.name)) for f in fields(value)}
        return {"type": type(value).__name__} | parts
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [as_json(item) for item in items]
    return _plain(value)


def _plain(value: Any) -> str | int | float | None:
    """Turns a single value into one that JSON has; raises as :func:`as_json`."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, (np.integer, np.floating, np.bool_)):
        value = value.item()
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, float) and not np.isfinite(value):
        raise ValueError(f"{value} cannot be stored in a result file: only finite numbers can")
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ValueError(
        f"a {type(value).__name__} ({value!r:.80}) cannot be stored in a result file: use numbers, text, "
        "lists, mappings or dataclasses of them"
    )


def digest(value: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a value's JSON with sorted keys.

    Raises:
        ValueError: as :func:`as_json`.
    """
    text = json.dumps(as_json(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_checked(path: Path) -> dict[str, Any]:
    """Reads the JSON of a result file and checks its keys, types and ranges.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a whole JSON file, of a newer schema, or keys or values are missing or wrong.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no result file {path}: give the .json that `fewseg evaluate` wrote"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not a whole JSON file ({error}): evaluate again or restore it"
        ) from error
    if not isinstance(found, dict) or "schema" not in found:
        raise ValueError(
            f"{path} is not a result file: it has no 'schema'; give the .json of `fewseg evaluate`"
        )
    if not isinstance(found["schema"], int) or found["schema"] > SCHEMA:
        raise ValueError(
            f"{path} has schema {found['schema']!r}; this fewseg reads schemas up to {SCHEMA}: update fewseg"
        )
    found = _upgraded(found)
    _check_keys(found, _KEYS | SEAL if found["schema"] >= SEALED else _KEYS, str(path))
    if not found["seeds"]:
        raise ValueError(f"{path} has no seeds: evaluate again")
    for i, seed in enumerate(found["seeds"]):
        where = f"{path}, seeds[{i}]"
        _check_keys(seed, _SEED_KEYS, where)
        _check_fractions([seed["miou"], seed["fb_iou"], seed["dice"], *seed["per_class"].values()], where)
        if not all(key.isdecimal() for key in seed["per_class"]):
            raise ValueError(f"{where}: per_class has keys {sorted(seed['per_class'])}; they are class ids")
        if set(seed["per_class"]) != set(found["seeds"][0]["per_class"]) or not seed["per_class"]:
            raise ValueError(
                f"{where} has classes {sorted(seed['per_class'])}, unlike seeds[0]: evaluate again"
            )
    if len(found["miou_ci95"]) != 2:
        raise ValueError(
            f"{path}: miou_ci95 has {len(found['miou_ci95'])} ends; an interval has 2: evaluate again"
        )
    _check_fractions(
        [found["miou_mean"], found["fb_iou_mean"], found["dice_mean"], *found["miou_ci95"]], str(path)
    )
    return found


def _upgraded(found: dict[str, Any]) -> dict[str, Any]:
    """A result of an older schema as one of this."""
    return {**found, "on": "query"} if found["schema"] == 1 else found


def _check_keys(found: Any, expected: Mapping[str, tuple[type, ...]], where: str) -> None:
    if not isinstance(found, dict):
        raise ValueError(f"{where} is a {type(found).__name__} and should be a mapping: evaluate again")
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unknown:
        raise ValueError(
            f"{where}: missing keys {missing}, unknown keys {unknown}: the file was edited or is no "
            "result file; evaluate again"
        )
    for key, types in expected.items():
        if not isinstance(found[key], types) or isinstance(found[key], bool):
            names = " or ".join(t.__name__ for t in types)
            raise ValueError(f"{where}: {key} is {found[key]!r:.60} and should be {names}: evaluate again")


def _check_fractions(values: list[Any], where: str) -> None:
    for value in values:
        if not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ValueError(
                f"{where}: the score {value!r} is not a fraction in [0, 1] (percent?): evaluate again"
            )


def counts_path(path: str | Path) -> Path:
    """Where the counts of the result file ``path`` lie: ``<stem>.counts.npz`` beside it."""
    return Path(path).with_name(f"{Path(path).stem}.counts.npz")


def load_counts(path: str | Path) -> EpisodeCounts:
    """Reads the per-episode counts of the result file ``path``.

    Raises:
        FileNotFoundError: there are none beside it.
        ValueError: the file is truncated or not a table of counts.
    """
    source = counts_path(path)
    if not source.exists():
        raise FileNotFoundError(
            f"{source} is missing: it holds the per-episode counts of {path} and must lie beside it; "
            "copy it along or evaluate again"
        )
    try:
        with np.load(source, allow_pickle=False) as stored:
            return EpisodeCounts(**{f.name: stored[f.name] for f in fields(EpisodeCounts)})
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{source} is not a whole table of episode counts ({error}): evaluate again"
        ) from error


def sealed(stored: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """The content of a result file with its digest and the SHA-256 of its counts, which are there already."""
    found = {**stored, "counts_sha256": _sha256(counts_path(path))}
    return {**found, "digest": digest(found)}


def without_seal(found: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a result file alone."""
    return {key: value for key, value in found.items() if key not in SEAL}


def check_seal(path: str | Path, found: Mapping[str, Any], *, with_counts: bool = False) -> None:
    """Checks the digest of a result file; older files have none.

    Args:
        path: the file.
        found: its content.
        with_counts: look at the file of counts beside it too.

    Raises:
        ValueError: the file was edited, or the counts are not those that it was made of.
    """
    if "digest" not in found:
        return
    own = digest({key: value for key, value in found.items() if key != "digest"})
    if own != found["digest"]:
        raise ValueError(
            f"{path} has the digest {found['digest']}, that of its content is {own}: the file was edited; "
            "evaluate again"
        )
    if with_counts and _sha256(counts_path(path)) != found["counts_sha256"]:
        raise ValueError(
            f"{counts_path(path)} is not the file that {Path(path).name} was made of: one of the two was "
            "edited or is of another run; evaluate again"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_said_twice(path: str | Path, result: RunResult) -> None:
    """Checks what a result says twice: means and spread over seeds, and the digest of its protocol.

    Raises:
        ValueError: the file was edited.
    """
    for name in ("miou", "fb_iou", "dice"):
        stored = getattr(result, f"{name}_mean")
        mean = float(np.mean([getattr(seed, name) for seed in result.seeds]))
        if abs(stored - mean) > 1e-9:
            raise ValueError(
                f"{path}: {name}_mean is {stored:.6f}, the mean of its seeds {mean:.6f}: the file was "
                "edited; evaluate again"
            )
    spread = std_over_seeds([seed.miou for seed in result.seeds])
    if (result.miou_std is None) != (spread is None) or abs((result.miou_std or 0) - (spread or 0)) > 1e-9:
        raise ValueError(
            f"{path}: miou_std is {result.miou_std}, that of its seeds {spread}: the file was edited; "
            "evaluate again"
        )
    try:
        protocol = stored_protocol(result.protocol)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: its protocol is none ({error}): evaluate again") from error
    if protocol is not None and protocol.digest() != result.protocol_digest:
        raise ValueError(
            f"{path}: the digest {result.protocol_digest} is not that of its protocol, {protocol.digest()}: "
            "the file was edited; evaluate again"
        )


_SPLITS: Mapping[str, Callable[[int], ClassSplit]] = {
    "pascal-5i": pascal_5i,
    "coco-20i": coco_20i,
    "coco-20i-a": partial(coco_20i, split="A"),
}


def check_older(path: str | Path, result: RunResult, counts: EpisodeCounts) -> None:
    """Checks shots, fold, fusion, class split and protocol of a result; one with a seal needs no such check.

    Raises:
        ValueError: one does not follow from the others, so the file was edited.
    """
    if result.schema >= SEALED:
        return
    for what, said, follows in _pairs(result, counts):
        if said != follows:
            raise ValueError(
                f"{path}: {what} is {said!s:.80}, from the rest of the file and its counts follows "
                f"{follows!s:.80}: the file was edited; evaluate again"
            )


def _pairs(result: RunResult, counts: EpisodeCounts) -> list[tuple[str, Any, Any]]:
    """(what, what the file says, what follows from the rest)."""
    split, fusion = result.class_split, result.config.get("fusion")
    found: list[tuple[str, Any, Any]] = []
    if counts.supports.shape[1]:  # tables that were not made by fewseg may leave the supports out
        found.append(("shots", result.shots, counts.supports.shape[1]))
    if isinstance(fusion, Mapping) and "kind" in fusion:
        found.append(("fusion", result.fusion, fusion["kind"]))
    if "novel" in split:
        found.append(("class_split.novel", sorted(split["novel"]), sorted(result.classes)))
    if split.get("type") == "ClassSplit":
        found.append(("fold", result.fold, split.get("fold")))
    if split.get("type") == "ClassSplit" and split.get("name") in _SPLITS and result.fold in range(4):
        found.append(("class_split", split, as_json(_SPLITS[split["name"]](result.fold))))
    return [*found, *_of_protocol(result)]


def _of_protocol(result: RunResult) -> list[tuple[str, Any, Any]]:
    protocol = stored_protocol(result.protocol)
    if protocol is None:  # of no newer fewseg, which would have sealed it
        return [("protocol_digest", result.protocol_digest, digest(result.protocol))]
    return [
        ("the list of seeds", tuple(seed.seed for seed in result.seeds), tuple(sorted(protocol.seeds))),
        ("the number of episodes", {seed.episodes for seed in result.seeds}, {protocol.episodes}),
    ]


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """Scores of one seed's episodes, fractions in [0, 1].

    Attributes:
        seed: the seed.
        episodes: how many episodes, whatever their ways.
        miou: mean over classes of foreground IoU.
        fb_iou: mean of foreground and background IoU over all episodes; the foreground is that of any way.
        dice: mean over classes of foreground Dice.
        per_class: class id to foreground IoU.
    """

    seed: int
    episodes: int
    miou: float
    fb_iou: float
    dice: float
    per_class: Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One method on one fold. Scores are fractions in [0, 1].

    Attributes:
        method: name in ``methods.registry``, e.g. "scl-pfenet".
        recipe: name of the recipe that trained it, or "".
        dataset: e.g. "pascal-5i".
        fold: index of the fold.
        ways: N.
        shots: K.
        fusion: how K shots became one answer, e.g. "average", "cross-guided", "iterative".
        on: what was segmented: "query", or "support" for the support images themselves.
        protocol: every choice that decides which episodes are drawn and how they are scored.
        protocol_digest: digest of ``protocol``; results are comparable when it is equal.
        seeds: one entry a seed.
        miou_mean: mean over seeds.
        miou_std: sample standard deviation over seeds; None for a single seed.
        miou_ci95: 95 % bootstrap interval over episodes of ``miou_mean``.
        fb_iou_mean: mean over seeds.
        dice_mean: mean over seeds.
        config: the method's config.
        class_split: which classes were trained on and which are tested.
        versions: software.
        hardware: one line about the machine.
        wall_seconds: time of the evaluation, in seconds.
        training: checkpoint digest and what else is known of the training; may be empty.
        schema: version of the layout that it was read from.
    """

    method: str
    recipe: str
    dataset: str
    fold: int
    ways: int
    shots: int
    fusion: str
    protocol: Mapping[str, Any]
    protocol_digest: str
    seeds: tuple[SeedResult, ...]
    miou_mean: float
    miou_std: float | None
    miou_ci95: tuple[float, float]
    fb_iou_mean: float
    dice_mean: float
    config: Mapping[str, Any]
    class_split: Mapping[str, Any]
    versions: Mapping[str, str]
    hardware: str
    wall_seconds: float
    training: Mapping[str, Any] = field(default_factory=dict)
    on: str = "query"
    schema: int = SCHEMA

    @property
    def classes(self) -> list[int]:
        """The fold's class ids."""
        return list(self.seeds[0].per_class)

    @property
    def class_names(self) -> dict[int, str]:
        """Class id to name, as far as ``class_split`` has ``class_names``."""
        return {int(c): str(name) for c, name in self.class_split.get("class_names", {}).items()}

    @property
    def per_class_mean(self) -> dict[int, float]:
        """Class id to foreground IoU, mean over seeds."""
        return {c: float(np.mean([s.per_class[c] for s in self.seeds])) for c in self.classes}

    @property
    def per_class_dice(self) -> dict[int, float]:
        """Class id to foreground Dice, 2 IoU / (1 + IoU) of each seed's summed counts; mean over seeds."""
        dice = {c: [2 * s.per_class[c] / (1 + s.per_class[c]) for s in self.seeds] for c in self.classes}
        return {c: float(np.mean(values)) for c, values in dice.items()}

    @staticmethod
    def from_counts(
        counts: EpisodeCounts,
        *,
        classes: Sequence[int],
        method: str,
        recipe: str,
        dataset: str,
        fold: int,
        shots: int,
        fusion: str,
        protocol: Any,
        config: Any,
        class_split: Any,
        wall_seconds: float,
        ways: int = 1,
        on: str = "query",
        protocol_digest: str | None = None,
        training: Mapping[str, Any] | None = None,
        made_with: Environment | None = None,
    ) -> RunResult:
        """Scores an episode table.

        Args:
            counts: all episodes of all seeds.
            classes: the fold's class ids.
            method: as the attribute of this name, and so are the next five.
            recipe: as the attribute.
            dataset: as the attribute.
            fold: as the attribute.
            shots: as the attribute.
            fusion: as the attribute.
            protocol: mapping or dataclass.
            config: mapping or dataclass.
            class_split: mapping or dataclass.
            wall_seconds: as the attribute.
            ways: as the attribute.
            on: as the attribute.
            protocol_digest: default: the protocol's own ``digest()``, or :func:`digest` of a mapping.
            training: mapping; default empty.
            made_with: default: this process.

        Raises:
            ValueError: a seed never drew one of the classes, the table is not of episodes of so many ways, or
                a value cannot be stored as a JSON mapping.
        """
        counts.check_ways(ways)
        made_with = made_with or environment()
        seeds = tuple(_score_seed(counts, int(s), classes) for s in np.unique(counts.seed))
        interval = bootstrap_miou(counts, classes)
        return RunResult(
            method=method,
            recipe=recipe,
            dataset=dataset,
            fold=fold,
            ways=ways,
            on=on,
            shots=shots,
            fusion=fusion,
            protocol=_mapping("protocol", protocol),
            protocol_digest=protocol_digest or _digest_of(protocol),
            seeds=seeds,
            miou_mean=float(np.mean([s.miou for s in seeds])),
            miou_std=std_over_seeds([s.miou for s in seeds]),
            miou_ci95=(interval.low, interval.high),
            fb_iou_mean=float(np.mean([s.fb_iou for s in seeds])),
            dice_mean=float(np.mean([s.dice for s in seeds])),
            config=_mapping("config", config),
            class_split=_mapping("class_split", class_split),
            versions=made_with.versions,
            hardware=made_with.hardware,
            wall_seconds=wall_seconds,
            training=_mapping("training", training or {}),
        )

    def save(self, path: str | Path, counts: EpisodeCounts) -> None:
        """Writes ``path`` (JSON) and ``<stem>.counts.npz`` beside it, each in one step, in today's schema.

        Raises:
            OSError: the disk is full or the folder cannot be written; earlier files are still there.
        """
        with atomic_path(counts_path(path)) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **counts.columns())
        stored = {"schema": SCHEMA} | asdict(replace(self, schema=SCHEMA))
        text = json.dumps(sealed(stored, path), indent=2, allow_nan=False, ensure_ascii=False)
        atomic_write_text(path, text + "\n")

    @staticmethod
    def load(path: str | Path) -> RunResult:
        """Reads and checks a result file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is truncated, edited, of a newer schema, or keys or values are missing or wrong.
        """
        found = read_checked(Path(path))
        check_seal(path, found)
        return _result_of(found)


def load_with_counts(path: str | Path) -> tuple[RunResult, EpisodeCounts]:
    """Reads a result and its counts and checks that the scores follow from the counts.

    The means are checked against the seeds, the protocol's digest against the protocol, and all else by the
    seal; in older files, which have none, by what follows from the rest (see ``older_results``).

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: one is damaged or was edited, or they do not belong together.
    """
    content = read_checked(Path(path))
    result, counts = _result_of(content), load_counts(path)
    try:
        counts.check_ways(result.ways)
    except ValueError as error:
        raise ValueError(f"{path} does not follow from {counts_path(path).name}: {error}") from error
    for stored in result.seeds:
        found = _score_seed(counts, stored.seed, result.classes)
        pairs = [(stored.miou, found.miou), (stored.fb_iou, found.fb_iou), (stored.dice, found.dice)]
        pairs += [(stored.per_class[c], found.per_class[c]) for c in result.classes]
        if stored.episodes != found.episodes or not all(abs(a - b) < 1e-9 for a, b in pairs):
            raise ValueError(
                f"{path} does not follow from {counts_path(path).name} (seed {stored.seed}: mIoU "
                f"{stored.miou:.6f} stored, {found.miou:.6f} counted): the file was edited or the two are of "
                "different runs; evaluate again"
            )
    check_said_twice(path, result)
    check_older(path, result, counts)
    check_seal(path, content, with_counts=True)
    return result, counts


def _result_of(found: Mapping[str, Any]) -> RunResult:
    """The result of a file's checked content."""
    seeds = tuple(
        SeedResult(**{**seed, "per_class": {int(c): v for c, v in seed["per_class"].items()}})
        for seed in found["seeds"]
    )
    low, high = found["miou_ci95"]
    return RunResult(**{**without_seal(found), "seeds": seeds, "miou_ci95": (low, high)})


def _mapping(name: str, value: Any) -> dict[str, Any]:
    plain = as_json(value)
    if not isinstance(plain, dict):
        raise ValueError(f"{name} is a {type(value).__name__}: a result needs a mapping or a dataclass there")
    return plain


def _digest_of(protocol: Any) -> str:
    own = getattr(protocol, "digest", None)
    return str(own()) if callable(own) else digest(protocol)


def _score_seed(counts: EpisodeCounts, seed: int, classes: Sequence[int]) -> SeedResult:
    table = counts.select(counts.seed == seed)
    try:
        return SeedResult(
            seed=seed,
            episodes=table.episodes,
            miou=miou(table, classes),
            fb_iou=fb_iou(table),
            dice=dice(table, classes),
            per_class=per_class(table, classes),
        )
    except ValueError as error:
        raise ValueError(f"seed {seed}: {error}") from error
