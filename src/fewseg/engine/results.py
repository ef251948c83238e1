"""A result: the scores of one method on one fold, the counts that they follow from, and a seal on both files.

``<stem>.json`` holds the scores and everything that decided them; ``<stem>.counts.npz`` beside it the integer
counts of every episode. The JSON carries the SHA-256 of the counts and a digest of itself, so that an edited
file is found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from fewseg.data.protocols import stored_protocol
from fewseg.engine.environment import Environment, environment
from fewseg.errors import first_line
from fewseg.metrics import (
    EpisodeCounts,
    bootstrap_score,
    dice,
    dice_of_miou,
    fb_iou,
    miou,
    per_class,
    std_over_seeds,
)
from fewseg.ops.files import atomic_path, atomic_write_text, parse_json
from fewseg.types import value_before

SCHEMA = 4
"""Version of the layout of a result file; results of earlier versions are evaluated again."""

_DERIVED = ("miou_mean", "miou_std", "fb_iou_mean", "dice_mean")
_SEAL = ("counts_sha256", "digest")
_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "int | None": (int, type(None)),
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "tuple": (list,),
    "Mapping": (dict,),
}
"""Annotation of a field without its brackets, to what JSON has in its place."""


def as_json(value: Any) -> Any:
    """Turns configs into what JSON gives back: mappings, lists, strings, numbers, booleans, None.

    A dataclass becomes its fields and ``type``, its class name, so that parts without fields stay different;
    a field with its ``value_before`` is left out.
    Keys become strings; sets are sorted.
    """
    if is_dataclass(value) and not isinstance(value, type):
        named = {f.name: (getattr(value, f.name), value_before(f)) for f in fields(value)}
        parts = {name: as_json(part) for name, (part, before) in named.items() if part != before}
        return {"type": type(value).__name__} | parts
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [as_json(item) for item in items]
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, (np.integer, np.floating, np.bool_)):
        value = value.item()
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, float) and not np.isfinite(value):
        raise ValueError(f"{value} cannot be stored in a result file: numbers must be finite")
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ValueError(
        f"a {type(value).__name__} ({value!r:.80}) cannot be stored in a result file: use numbers, text, "
        "lists, mappings or dataclasses of them"
    )


def digest(value: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a value's JSON with sorted keys."""
    text = json.dumps(as_json(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """Scores of one seed's episodes, fractions in [0, 1]."""

    seed: int  # the seed
    episodes: int  # how many episodes, whatever their ways
    miou: float  # mean over classes of foreground IoU
    # mean of foreground and background IoU over all episodes; the foreground is that of any way
    fb_iou: float
    dice: float  # mean over classes of foreground Dice
    per_class: Mapping[int, float]  # class id to foreground IoU


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One method on one fold. Scores are fractions in [0, 1]."""

    method: str  # registered name, e.g. "scl-pfenet".
    variant: str = ""  # name of the recipe's variant, e.g. "sdaanet_saam", or "".
    recipe: str  # name of the recipe that trained it, or ""
    dataset: str  # e.g. "pascal-5i".
    fold: int  # index of the fold
    train_seed: int | None = None  # seed of the training, 0 where there was none; None where it is not known
    checkpoint: str = ""  # digest of the checkpoint, or ""
    ways: int = 1  # N
    shots: int  # K
    fusion: str  # how K shots became one answer, e.g. "average", "cross-guided", "iterative".
    on: str = "query"  # what was segmented: "query", or "support" for the support images themselves
    # side of the network's input in pixels; several where the probabilities of several inputs were added
    sizes: tuple[int, ...] = ()
    # sides that the logits of one pass were resized to, the probabilities of which were added; empty, and not
    # stored, where the logits at the input's size were the answer
    output_sizes: tuple[int, ...] = field(default=(), metadata={"before": ()})
    precision: str = ""  # of features and head, or ""
    episodes: str = "drawn"  # "drawn", or "recorded" where manifests were replayed
    data: str = ""  # digest of the index of the test images, or ""
    protocol: Mapping[str, Any]  # every choice that decides which episodes are drawn and how they are scored
    protocol_digest: str  # digest of ``protocol``; results are comparable when it is equal
    seeds: tuple[SeedResult, ...]  # one entry a seed
    miou_ci95: tuple[float, float]  # 95 % bootstrap interval over episodes of ``miou_mean``
    config: Mapping[str, Any]  # configs of method and fusion
    class_split: Mapping[str, Any]  # which classes were trained on and which are tested
    versions: Mapping[str, str]  # software
    hardware: str  # one line about the machine
    wall_seconds: float  # seconds, an equal share of the pass that evaluated this line with others
    # what else is known of the training; may be empty
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def miou_mean(self) -> float:
        """Mean over seeds."""
        return float(np.mean([s.miou for s in self.seeds]))

    @property
    def miou_std(self) -> float | None:
        """Sample standard deviation over seeds; None for a single seed."""
        return std_over_seeds([s.miou for s in self.seeds])

    @property
    def fb_iou_mean(self) -> float:
        """Mean over seeds."""
        return float(np.mean([s.fb_iou for s in self.seeds]))

    @property
    def dice_mean(self) -> float:
        """Mean over classes of their Dice, mean over seeds."""
        return float(np.mean([s.dice for s in self.seeds]))

    @property
    def dice_of_miou_mean(self) -> float:
        """2 m / (1 + m) of ``miou_mean`` m: what SRPNet's Table 3 prints."""
        return dice_of_miou(self.miou_mean)

    @property
    def sizes_text(self) -> str:
        """For tables: "241", "241 + 353" of added inputs, "241, logits at 241 + 353"; "" if unknown."""
        if self.sizes == (0,):
            return "the images' own"
        inputs, outputs = (" + ".join(map(str, sides)) for sides in (self.sizes, self.output_sizes))
        return f"{inputs}, logits at {outputs}" if outputs else inputs

    @property
    def backbone(self) -> str:
        """Name of the method's backbone, or "" where ``config`` does not have it."""
        return str(nested(nested(self.config, "method"), "backbone").get("name", ""))

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
        protocol: Any,
        config: Any,
        class_split: Any,
        training: Any = None,
        made_with: Environment | None = None,
        **identity: Any,
    ) -> RunResult:
        """Scores an episode table; ``identity`` are the other fields, such as ``method`` and ``shots``."""
        counts.check_ways(identity.get("ways", 1))
        made_with = made_with or environment()
        digest_method = getattr(protocol, "digest", None)
        seeds, interval = _score_seeds(counts, classes), bootstrap_score(counts, classes)
        return RunResult(
            **identity,
            protocol=_mapping("protocol", protocol),
            protocol_digest=str(digest_method()) if callable(digest_method) else digest(protocol),
            seeds=seeds,
            miou_ci95=(interval.low, interval.high),
            config=_mapping("config", config),
            class_split=_mapping("class_split", class_split),
            versions=made_with.versions,
            hardware=made_with.hardware,
            training=_mapping("training", training or {}),
        )

    def content(self) -> dict[str, Any]:
        """The content of its file without the seal."""
        stored = asdict(self)
        stored = {f.name: stored[f.name] for f in fields(self) if stored[f.name] != value_before(f)}
        return {"schema": SCHEMA} | stored | {name: getattr(self, name) for name in _DERIVED}

    def save(self, path: str | Path, counts: EpisodeCounts) -> None:
        """Writes ``path`` (JSON) and ``<stem>.counts.npz`` beside it, each in one step."""
        with atomic_path(counts_path(path)) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **counts.columns())
        stored = sealed(self.content(), path)
        atomic_write_text(path, json.dumps(stored, indent=2, allow_nan=False, ensure_ascii=False) + "\n")

    @staticmethod
    def load(path: str | Path) -> RunResult:
        """Reads and checks a result file without its counts."""
        content = _read(Path(path))
        _check_digest(path, content)
        result = _result_of(content)
        _check_consistent(path, content, result)
        return result


def nested(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A nested config; of one that is not recorded an empty one."""
    part = config.get(name)
    return part if isinstance(part, Mapping) else {}


def load_with_counts(path: str | Path) -> tuple[RunResult, EpisodeCounts]:
    """Reads a result and its counts and checks that the scores follow from the counts."""
    content, counts = _read(Path(path)), load_counts(path)
    result, place = _result_of(content), counts_path(path)
    try:
        counts.check_ways(result.ways)
        by_seed = {seed.seed: seed for seed in _score_seeds(counts, result.classes)}
    except ValueError as error:
        raise ValueError(f"{path} does not follow from {place.name}: {error}") from error
    for stored in result.seeds:
        scored = by_seed.get(stored.seed)
        if scored is None or not _equal(stored, scored):
            counted = f"{scored.miou:.6f} counted" if scored else "not counted"
            raise ValueError(
                f"{path} does not follow from {place.name} (seed {stored.seed}: mIoU {stored.miou:.6f} "
                f"stored, {counted}): the file was edited or the two are of different runs; evaluate again"
            )
    _check_consistent(path, content, result)
    _check_digest(path, content)
    if _sha256(place) != content["counts_sha256"]:
        raise ValueError(
            f"{place} is not the file that {Path(path).name} was scored from: one of the two was edited or "
            "is of a different run; evaluate again"
        )
    return result, counts


def counts_path(path: str | Path) -> Path:
    """Where the counts of the result file ``path`` lie: ``<stem>.counts.npz`` beside it."""
    return Path(path).with_name(f"{Path(path).stem}.counts.npz")


_COLUMNS = {"query": ("U", 1), "supports": ("U", 2)}
"""Kind and axes of the columns of counts that are not of whole numbers."""


_MOST_BYTES = 2**30  # of a table of counts: millions of episodes


def load_counts(path: str | Path) -> EpisodeCounts:
    """Reads the per-episode counts of the result file ``path``."""
    source = counts_path(path)
    if not source.exists():
        raise FileNotFoundError(
            f"{source} is missing: it holds the per-episode counts of {path} and must lie beside it; "
            "copy it along or evaluate again"
        )
    try:
        with np.load(source, allow_pickle=False) as stored:
            if sum(info.file_size for info in stored.zip.infolist()) > _MOST_BYTES:
                raise ValueError(f"it unpacks to more than {_MOST_BYTES} bytes")
            columns = {f.name: stored[f.name] for f in fields(EpisodeCounts)}
        for name, column in columns.items():
            kind, axes = _COLUMNS.get(name, ("i", 1))
            if column.dtype.kind != kind or column.ndim != axes:
                raise ValueError(f"{name} is {column.dtype} {column.shape}")
        return EpisodeCounts(**columns)
    except Exception as error:  # zip, numpy and the table each have errors of their own
        raise ValueError(
            f"{source} is not a whole table of episode counts ({first_line(error)}): evaluate again"
        ) from error


def sealed(stored: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """The content of a result file with its digest and the SHA-256 of its counts, which exist already."""
    content = {**stored, "counts_sha256": _sha256(counts_path(path))}
    return {**content, "digest": digest(content)}


def _read(path: Path) -> dict[str, Any]:
    """The content of a result file with its keys, types and ranges checked."""
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no result file {path}: give the .json that `fewseg evaluate` wrote"
        )
    content = _json(path)
    if not isinstance(content, dict) or "schema" not in content:
        raise ValueError(
            f"{path} is not a result file: it has no 'schema'; give the .json of `fewseg evaluate`"
        )
    if content["schema"] != SCHEMA:
        newer = isinstance(content["schema"], int) and content["schema"] > SCHEMA
        raise ValueError(
            f"{path} has schema {content['schema']!r}; this fewseg reads schema {SCHEMA}: "
            + ("update fewseg" if newer else "evaluate again")
        )
    expected = {"schema": "int"} | _types(RunResult, content) | dict.fromkeys(_DERIVED, "float")
    _check_keys(content, expected | {"miou_std": "float | None"} | dict.fromkeys(_SEAL, "str"), str(path))
    if not content["seeds"]:
        raise ValueError(f"{path} has no seeds: evaluate again")
    for i, seed in enumerate(content["seeds"]):
        where = f"{path}, seeds[{i}]"
        _check_keys(seed, _types(SeedResult, seed), where)
        _check_fractions([seed["miou"], seed["fb_iou"], seed["dice"], *seed["per_class"].values()], where)
        if not all(key.isdecimal() and len(key) < 10 for key in seed["per_class"]):
            raise ValueError(
                f"{where}: per_class has keys {sorted(seed['per_class'])}; they must be class ids"
            )
        if set(seed["per_class"]) != set(content["seeds"][0]["per_class"]) or not seed["per_class"]:
            raise ValueError(
                f"{where} has classes {sorted(seed['per_class'])}, unlike seeds[0]: evaluate again"
            )
    if len(content["miou_ci95"]) != 2:
        raise ValueError(
            f"{path}: miou_ci95 has {len(content['miou_ci95'])} ends; an interval has 2: evaluate again"
        )
    _check_fractions([content[k] for k in _DERIVED if k != "miou_std"] + content["miou_ci95"], str(path))
    return content


def _json(path: Path) -> Any:
    """What a file of JSON holds: finite numbers and whole characters, not nested too deeply."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
        if _depth(content) > _DEEPEST:
            raise ValueError("it is nested too deeply")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not a whole JSON file ({error}): evaluate again or restore it"
        ) from error
    return content


_DEEPEST = 30  # lists and mappings in each other; a config has up to ten


def _depth(value: Any) -> int:
    """How many lists and mappings there are in each other."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if items is None else 1 + max(map(_depth, items), default=0)


def _types(kind: type, content: Any) -> dict[str, str]:
    """Field to annotation without brackets: "tuple" of ``tuple[int, ...]``; what may be absent if present."""
    expected = [f for f in fields(kind) if value_before(f) is MISSING or f.name in content]
    return {f.name: str(f.type).split("[")[0] for f in expected}


def _check_keys(content: Any, expected: Mapping[str, str], where: str) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{where} is a {type(content).__name__} and must be a mapping: evaluate again")
    missing, unknown = sorted(set(expected) - set(content)), sorted(set(content) - set(expected))
    if missing or unknown:
        raise ValueError(
            f"{where}: missing keys {missing}, unknown keys {unknown}: the file was edited or is not a "
            "result file; evaluate again"
        )
    for key, annotation in expected.items():
        types = _JSON_TYPES[annotation]
        value = content[key]
        too_large = isinstance(value, int) and abs(value) >= 2**63
        if not isinstance(value, types) or isinstance(value, bool) or too_large:
            names = " or ".join(t.__name__ for t in types)
            raise ValueError(f"{where}: {key} is {value!r:.60} and must be {names}: evaluate again")


def _check_fractions(values: Sequence[Any], where: str) -> None:
    for value in values:
        if not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ValueError(
                f"{where}: the score {value!r} is not a fraction in [0, 1] (percent?): evaluate again"
            )


def _check_digest(path: str | Path, content: Mapping[str, Any]) -> None:
    actual = digest({key: value for key, value in content.items() if key != "digest"})
    if actual != content["digest"]:
        raise ValueError(
            f"{path} has the digest {content['digest']}, that of its content is {actual}: the file was "
            "edited; evaluate again"
        )


def _result_of(content: Mapping[str, Any]) -> RunResult:
    """The result of a file's checked content."""
    seeds = tuple(
        SeedResult(**{**seed, "per_class": {int(c): v for c, v in seed["per_class"].items()}})
        for seed in content["seeds"]
    )
    low, high = content["miou_ci95"]
    values = {f.name: content.get(f.name, value_before(f)) for f in fields(RunResult)}
    values |= {name: tuple(values[name]) for name in ("sizes", "output_sizes")}
    return RunResult(**{**values, "seeds": seeds, "miou_ci95": (low, high)})


def _check_consistent(path: str | Path, content: Mapping[str, Any], result: RunResult) -> None:
    """Checks means and spread against the seeds, and the protocol's digest against the protocol."""
    for name in _DERIVED:
        stored, follows = content[name], getattr(result, name)
        if (stored is None) != (follows is None) or abs((stored or 0) - (follows or 0)) > 1e-9:
            raise ValueError(
                f"{path}: {name} is {stored}, that of its seeds {follows}: the file was edited; "
                "evaluate again"
            )
    try:
        protocol = stored_protocol(result.protocol)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: its protocol is invalid ({error}): evaluate again") from error
    if protocol is not None and protocol.digest() != result.protocol_digest:
        raise ValueError(
            f"{path}: the digest {result.protocol_digest} is not that of its protocol, {protocol.digest()}: "
            "the file was edited; evaluate again"
        )


def _score_seeds(counts: EpisodeCounts, classes: Sequence[int]) -> tuple[SeedResult, ...]:
    results = []
    for seed in np.unique(counts.seed).tolist():
        table = counts.select(counts.seed == seed)
        try:
            scores = {"miou": miou(table, classes), "fb_iou": fb_iou(table), "dice": dice(table, classes)}
            of_classes = per_class(table, classes)
        except ValueError as error:
            raise ValueError(f"seed {seed}: {error}") from error
        results.append(SeedResult(seed=seed, episodes=table.episodes, per_class=of_classes, **scores))
    return tuple(results)


def _equal(a: SeedResult, b: SeedResult) -> bool:
    pairs = [(a.miou, b.miou), (a.fb_iou, b.fb_iou), (a.dice, b.dice)]
    pairs += [(value, b.per_class[c]) for c, value in a.per_class.items()]
    return a.episodes == b.episodes and all(abs(x - y) < 1e-9 for x, y in pairs)


def _mapping(name: str, value: Any) -> dict[str, Any]:
    plain = as_json(value)
    if not isinstance(plain, dict):
        raise ValueError(f"{name} is a {type(value).__name__}: a result needs a mapping or a dataclass there")
    return plain


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
