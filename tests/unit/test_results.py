import dataclasses
import errno
import json
import os
import subprocess
from enum import Enum
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from fewseg.data.protocols import PAPER_SCL
from fewseg.engine import environment as environment_module
from fewseg.engine import results as results_module
from fewseg.engine.environment import Environment, environment
from fewseg.engine.results import RunResult, as_json, counts_path, digest, load_counts, load_with_counts
from fewseg.metrics import EpisodeCounts, bootstrap_score, count_ways, fb_iou, miou
from result_files import episode_table, write_sealed

KEYS = ["schema", *(f.name for f in dataclasses.fields(RunResult) if f.name != "output_sizes")]
KEYS += ["miou_mean", "miou_std", "fb_iou_mean", "dice_mean", "counts_sha256", "digest"]


def episodes(seeds=(0, 1), n=6):
    generator = np.random.default_rng(1)
    total = n * len(seeds)
    tp, fp, fn, tn = generator.integers(1, 100, (4, total))
    query = ["2007_000032", "b"]
    supports = np.resize([["s1", "s2"], ["é", "s4"]], (total, 2))
    options = {"pixels": tp + fp + fn + tn, "query": query, "supports": supports}
    made = episode_table([6, 7], tp, tp + fp, tp + fn, seeds=len(seeds), **options)
    return dataclasses.replace(made, seed=np.repeat(seeds, n))


@dataclasses.dataclass(frozen=True)
class NoPrior:
    pass


@dataclasses.dataclass(frozen=True)
class Config:
    prior: object = NoPrior()
    channels: tuple[int, ...] = (64, 128)
    rate: float = 0.5


def result(counts=None, **changes):
    arguments = {
        "classes": [6, 7],
        "method": "scl-pfenet",
        "recipe": "voc5i_mini_scl",
        "dataset": "voc5i-mini",
        "fold": 1,
        "shots": 2,
        "fusion": "average",
        "protocol": {"name": "mini", "episodes": 6},
        "config": Config(),
        "class_split": {"novel": [6, 7], "class_names": {6: "bus", 7: "car"}},
        "wall_seconds": 1.5,
        "train_seed": 0,
        "checkpoint": "sha256:ab",
        "training": {"step": 100},
        "made_with": Environment(versions={"torch": "1"}, hardware="one core"),
    }
    return RunResult.from_counts(episodes() if counts is None else counts, **(arguments | changes))


def saved(tmp_path, counts=None, **changes):
    counts = episodes() if counts is None else counts
    path = tmp_path / "run.v1.json"
    result(counts, **changes).save(path, counts)
    return path


def test_the_scores_follow_from_the_counts():
    counts = episodes()
    found = result(counts)
    ratios, dices, grounds = [], [], []
    for seed in (0, 1):
        own = counts.select(counts.seed == seed)
        iou = {
            c: own.fg_inter[own.class_id == c].sum() / own.fg_union[own.class_id == c].sum() for c in (6, 7)
        }
        stored = found.seeds[seed]
        assert (stored.seed, stored.episodes) == (seed, 6)
        assert stored.per_class == {c: pytest.approx(v) for c, v in iou.items()}
        assert stored.miou == pytest.approx(sum(iou.values()) / 2)
        ratios.append(stored.miou)
        areas = own.fg_pred + own.fg_true
        parts = [2 * own.fg_inter[own.class_id == c].sum() / areas[own.class_id == c].sum() for c in (6, 7)]
        assert stored.dice == pytest.approx(sum(parts) / 2)
        dices.append(stored.dice)
        foreground = own.fg_inter.sum() / own.fg_union.sum()
        background = own.bg_inter.sum() / own.bg_union.sum()
        assert stored.fb_iou == pytest.approx((foreground + background) / 2)
        grounds.append(stored.fb_iou)
    assert found.miou_mean == pytest.approx(sum(ratios) / 2)
    assert found.miou_std == pytest.approx(abs(ratios[0] - ratios[1]) / 2**0.5)
    assert found.dice_mean == pytest.approx(sum(dices) / 2)
    assert found.fb_iou_mean == pytest.approx(sum(grounds) / 2)
    interval = bootstrap_score(counts, [6, 7])
    assert found.miou_ci95 == (interval.low, interval.high)
    first, second = found.seeds
    assert found.per_class_mean[7] == pytest.approx((first.per_class[7] + second.per_class[7]) / 2)
    assert found.class_names == {6: "bus", 7: "car"}
    assert found.classes == [6, 7]


def test_one_seed_has_no_spread():
    assert result(episodes(seeds=(3,))).miou_std is None


def test_a_seed_that_never_drew_a_class_is_named():
    counts = episodes()
    counts = counts.select((counts.seed == 0) | (counts.class_id == 6))
    with pytest.raises(ValueError, match=r"seed 1: class \[7\] was never drawn"):
        result(counts)


@pytest.mark.parametrize("name", ["protocol", "config", "class_split", "training"])
def test_what_would_not_be_loaded_again_is_not_stored(name):
    with pytest.raises(ValueError, match=f"{name} is a str: a result needs a mapping"):
        result(**{name: "x"})
    with pytest.raises(ValueError, match="class_split is a NoneType"):
        result(class_split=None)


def test_a_saved_result_is_loaded_as_it_was(tmp_path):
    counts = episodes()
    path = saved(tmp_path, counts)
    loaded, loaded_counts = load_with_counts(path)
    assert loaded == result(counts)
    assert RunResult.load(str(path)) == loaded
    for name, column in counts.columns().items():
        assert np.array_equal(getattr(loaded_counts, name), column)
        assert getattr(loaded_counts, name).dtype == column.dtype


def test_the_json_has_exactly_the_keys_of_the_schema_and_fractions(tmp_path):
    stored = json.loads(saved(tmp_path).read_text())
    assert list(stored) == KEYS
    assert list(stored["seeds"][0]) == ["seed", "episodes", "miou", "fb_iou", "dice", "per_class"]
    assert list(stored["seeds"][0]["per_class"]) == ["6", "7"]
    assert 0 < stored["miou_mean"] < 1
    assert stored["schema"] == 4
    assert stored["ways"] == 1


def test_the_counts_lie_beside_the_json_without_pickle(tmp_path):
    path = saved(tmp_path)
    assert counts_path(path) == tmp_path / "run.v1.counts.npz"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.v1.counts.npz", "run.v1.json"]
    with np.load(counts_path(path), allow_pickle=False) as stored:
        assert stored["fg_inter"].dtype == np.int64
        assert set(stored.files) == set(episodes().columns())


def test_a_full_disk_leaves_the_earlier_result(tmp_path, monkeypatch):
    path = saved(tmp_path)
    before = path.read_bytes(), counts_path(path).read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        saved(tmp_path, episodes(seeds=(5,)))
    monkeypatch.undo()
    assert (path.read_bytes(), counts_path(path).read_bytes()) == before


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no result file"):
        RunResult.load(tmp_path / "none.json")
    path = saved(tmp_path)
    counts_path(path).unlink()
    with pytest.raises(FileNotFoundError, match="must lie beside it; copy it along or evaluate again"):
        load_counts(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_files_are_refused(tmp_path, share):
    path = saved(tmp_path)
    for file, read in ((path, RunResult.load), (counts_path(path), lambda _: load_counts(path))):
        whole = file.read_bytes()
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match="is not a whole"):
            read(path)
        file.write_bytes(whole)


def test_damaged_bytes_within_the_counts_are_refused(tmp_path):
    path = saved(tmp_path)
    whole = bytearray(counts_path(path).read_bytes())
    whole[60:90] = b"\xff" * 30
    counts_path(path).write_bytes(bytes(whole))
    with pytest.raises(ValueError, match="is not a whole"):
        load_counts(path)


def test_counts_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
    path = saved(tmp_path)
    load_counts(path)
    monkeypatch.setattr(results_module, "_MOST_BYTES", 1000)
    with pytest.raises(ValueError, match=r"is not a whole table .*it unpacks to more than 1000 bytes"):
        load_counts(path)


class Trap:
    """An object whose unpickling leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (self.trace,)


def test_counts_that_would_run_code_are_refused_without_running_it(tmp_path):
    path, trace = saved(tmp_path), tmp_path / "ran"
    columns = episodes().columns() | {"query": np.array([Trap(str(trace))] * 12, dtype=object)}
    np.savez(counts_path(path), **columns)
    with pytest.raises(ValueError, match="is not a whole table of episode counts"):
        load_counts(path)
    assert not trace.exists()


def edit(path, change):
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))


def put(*keys, value):
    def change(stored):
        for key in keys[:-1]:
            stored = stored[key]
        stored[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("schema", value=5), "schema 5; this fewseg reads schema 4: update fewseg"),
        (put("schema", value=3), "schema 3; this fewseg reads schema 4: evaluate again"),
        (put("schema", value="x"), "schema 'x'"),
        (lambda s: s.pop("digest"), r"missing keys \['digest'\]"),
        (lambda s: s.pop("counts_sha256"), r"missing keys \['counts_sha256'\]"),
        (lambda s: s.pop("schema"), "is not a result file"),
        (lambda s: s.pop("fold"), r"missing keys \['fold'\], unknown keys \[\]"),
        (put("extra", value=1), r"missing keys \[\], unknown keys \['extra'\]"),
        (lambda s: s["seeds"][1].pop("dice"), r"seeds\[1\]: missing keys \['dice'\]"),
        (put("fold", value="1"), "fold is '1' and must be int"),
        (put("fold", value=True), "fold is True and must be int"),
        (put("wall_seconds", value=10**400), "wall_seconds is 1000.* and must be"),
        (put("miou_std", value=10**400), "miou_std is 1000.* and must be"),
        (put("miou_std", value="x"), "must be int or float or NoneType"),
        (put("config", value=[]), r"config is \[\] and must be dict"),
        (put("seeds", value=[]), "has no seeds"),
        (put("seeds", value=[3]), r"seeds\[0\] is a int and must be a mapping"),
        (put("miou_mean", value=54.4), r"score 54.4 is not a fraction in \[0, 1\] \(percent\?\)"),
        (put("fb_iou_mean", value=-0.1), "score -0.1 is not a fraction"),
        (put("dice_mean", value=1.1), "score 1.1 is not a fraction"),
        (put("miou_ci95", value=[0.1, 54]), "score 54 is not a fraction"),
        (put("miou_ci95", value=[0.1]), "miou_ci95 has 1 ends"),
        (put("seeds", 1, "miou", value=2), r"seeds\[1\]: the score 2"),
        (put("seeds", 1, "per_class", "6", value=2), r"seeds\[1\]: the score 2"),
        (put("seeds", 1, "per_class", "8", value=0.5), r"seeds\[1\] has classes .* unlike seeds\[0\]"),
        (put("seeds", 0, "per_class", "bus", value=0.5), "they must be class ids"),
        (put("seeds", 0, "per_class", "1" * 5000, value=0.5), "they must be class ids"),
        (put("seeds", 0, "per_class", value={}), "has classes"),
    ],
)
def test_an_edited_result_is_refused_with_what_is_wrong(tmp_path, change, message):
    path = saved(tmp_path)
    edit(path, change)
    with pytest.raises(ValueError, match=message):
        RunResult.load(path)


def test_json_that_is_no_mapping_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("[1]")
    with pytest.raises(ValueError, match="is not a result file"):
        RunResult.load(path)


@pytest.mark.parametrize(
    "change",
    [
        put("seeds", 1, "miou", value=0.9),
        put("seeds", 1, "fb_iou", value=0.9),
        put("seeds", 0, "dice", value=0.9),
        put("seeds", 0, "episodes", value=7),
        put("seeds", 1, "per_class", "7", value=0.9),
        lambda stored: stored["seeds"][1].update(miou=stored["seeds"][1]["miou"] + 1e-6),
    ],
)
def test_scores_that_do_not_follow_from_the_counts_are_refused(tmp_path, change):
    path = saved(tmp_path)
    edit(path, change)
    with pytest.raises(ValueError, match=r"does not follow from run\.v1\.counts\.npz.*evaluate again"):
        load_with_counts(path)


@pytest.mark.parametrize("name", ["miou_mean", "miou_std", "fb_iou_mean", "dice_mean"])
def test_a_mean_that_is_not_that_of_its_seeds_is_refused(tmp_path, name):
    path = saved(tmp_path)
    edit(path, put(name, value=0.9))
    with pytest.raises(ValueError, match=f"{name} is 0.9.*edited; evaluate again"):
        load_with_counts(path)


def test_a_digest_that_is_not_that_of_its_protocol_is_refused(tmp_path):
    path = saved(tmp_path, protocol=PAPER_SCL)
    assert load_with_counts(path)[0].protocol_digest == PAPER_SCL.digest()
    edit(path, put("protocol", "min_area", value=1))
    with pytest.raises(ValueError, match=f"digest {PAPER_SCL.digest()} is not that of its protocol"):
        load_with_counts(path)
    edit(path, put("protocol", "episodes", value="many"))
    with pytest.raises(ValueError, match="its protocol is invalid"):
        load_with_counts(path)


EDITS = {
    ("miou_ci95",): [0.1, 0.9],
    ("shots",): 5,
    ("fold",): 0,
    ("dataset",): "pascal-5i",
    ("method",): "pfenet",
    ("recipe",): "a different one",
    ("variant",): "a different one",
    ("train_seed",): 1,
    ("episodes",): "recorded",
    ("fusion",): "mean",
    ("on",): "support",
    ("precision",): "bf16",
    ("sizes",): [473],
    ("output_sizes",): [321, 473],
    ("data",): "ab",
    ("config", "channels"): [],
    ("class_split", "base"): [6, 7],
    ("class_split", "novel"): [1],
    ("checkpoint",): "cd",
    ("training", "step"): 200,
    ("hardware",): "a faster one",
    ("wall_seconds",): 1.0,
    ("versions",): {},
    ("protocol", "crop"): "centre",
    ("protocol", "type"): "Protokoll",
    ("counts_sha256",): "0" * 64,
    ("digest",): "0" * 16,
}


@pytest.mark.parametrize("keys", EDITS, ids=".".join)
def test_any_edit_of_a_sealed_result_is_refused(tmp_path, keys):
    path = saved(tmp_path, protocol=PAPER_SCL, output_sizes=(241, 353))
    assert load_with_counts(path)[0] == RunResult.load(path)
    edit(path, put(*keys, value=EDITS[keys]))
    for load in (load_with_counts, RunResult.load):
        with pytest.raises(ValueError, match="the file was edited; evaluate again"):
            load(path)


def test_results_without_output_sizes_are_those_of_before_they_existed(tmp_path):
    path = saved(tmp_path, output_sizes=(241, 353))
    assert RunResult.load(path).output_sizes == (241, 353)
    edit(path, put("output_sizes", value=None))
    with pytest.raises(ValueError, match="output_sizes is None and must be list"):
        RunResult.load(path)
    assert "output_sizes" not in json.loads(saved(tmp_path).read_text())
    assert RunResult.load(path).output_sizes == ()


def test_other_counts_of_the_same_scores_are_refused(tmp_path):
    path = saved(tmp_path)
    columns = dict(np.load(counts_path(path)))
    columns["query"] = columns["query"][::-1]
    np.savez(counts_path(path), **columns)
    RunResult.load(path)  # does not look at them
    with pytest.raises(ValueError, match=r"is not the file that run\.v1\.json was scored from"):
        load_with_counts(path)


def test_a_protocol_of_a_newer_fewseg_is_taken_where_its_file_has_the_seal(tmp_path):
    path = saved(tmp_path, protocol=PAPER_SCL)
    stored = json.loads(path.read_text())
    stored["protocol"]["crop"] = "centre"
    write_sealed(path, stored)
    assert load_with_counts(path)[0].protocol["crop"] == "centre"


class Size(Enum):
    ORIGINAL = "original"


def test_configs_become_plain_json_and_parts_keep_their_names():
    assert as_json(Config()) == {
        "type": "Config",
        "prior": {"type": "NoPrior"},
        "channels": [64, 128],
        "rate": 0.5,
    }
    mixed = {
        1: Size.ORIGINAL,
        "s": {2, 1},
        "p": Path("a/b"),
        "n": np.int64(3),
        "f": np.float32(0.5),
        "z": None,
    }
    expected = {"1": "original", "s": [1, 2], "p": "a/b", "n": 3, "f": 0.5, "z": None}
    assert as_json(mixed) == expected
    assert json.loads(json.dumps(as_json(mixed))) == expected
    assert as_json([True, np.bool_(False)]) == [True, False]


@pytest.mark.parametrize("value", [float("nan"), np.float64("inf"), object(), torch.zeros(1), Config])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(ValueError, match="cannot be stored in a result file"):
        as_json({"a": [value]})


def test_a_digest_depends_on_the_values_and_not_on_their_order():
    assert digest({"a": 1, "b": (2, 3)}) == digest({"b": [2, 3], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    # sha256 of {"a":1}
    assert digest({"a": 1}) == "015abd7f5cc57a2d"


def test_the_digest_is_the_protocols_own_or_that_of_a_mapping():
    assert result().protocol_digest == digest({"name": "mini", "episodes": 6})
    assert result(protocol=PAPER_SCL).protocol_digest == PAPER_SCL.digest()


def test_the_environment_names_versions_and_hardware():
    found = environment()
    assert found.versions["torch"] == metadata.version("torch")
    assert {"python", "torch", "torchvision", "timm", "fewseg"} <= set(found.versions)
    assert f"{torch.get_num_threads()} threads" in found.hardware
    assert "GiB" in found.hardware
    assert os.uname().nodename not in found.hardware


def test_this_process_is_described_when_nothing_else_is_given():
    found = result(made_with=None)
    assert found.hardware == environment().hardware
    assert found.versions["python"] == environment().versions["python"]


def test_the_gpu_is_named_when_there_is_one(monkeypatch):
    gpu = type("gpu", (), {"name": "NVIDIA H200", "total_memory": 139 * 2**30})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: gpu)
    assert environment().hardware.endswith("; 2 x NVIDIA H200, 139 GiB")


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_the_revision_is_that_of_the_tree_that_tracks_the_package(tmp_path):
    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("a = 1\n")
    git(tmp_path, "init")
    assert environment_module._revision(package) is None, "a file that git does not track has no revision"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "x")
    clean = environment_module._revision(package)
    assert len(clean) == 40
    (tmp_path / "notes.txt").write_text("x")
    assert environment_module._revision(package) == clean
    (package / "__init__.py").write_text("a = 2\n")
    assert environment_module._revision(package) == f"{clean}+changed"


def test_without_git_there_is_no_revision(tmp_path, monkeypatch):
    def no_git(*arguments, **more):
        raise FileNotFoundError("git")

    monkeypatch.setattr(environment_module.subprocess, "run", no_git)
    uncached = environment_module._revision_at_first_look.__wrapped__
    monkeypatch.setattr(environment_module, "_revision_at_first_look", uncached)
    assert "revision" not in environment().versions


def episodes_of_two_ways(seeds=(0, 1), n=6):
    generator = np.random.default_rng(2)
    tables = []
    for seed in seeds:
        for i in range(n):
            prediction, truth = generator.integers(0, 3, (2, 8, 8))
            tables.append(
                EpisodeCounts.of(
                    count_ways(prediction, truth, 2),
                    seed=seed,
                    episode=i,
                    class_id=[6, 7, 0] if i % 2 else [7, 6, 0],
                    query=f"q{i}",
                    supports=[["s1", "s2"], ["s3", "s4"], ["", ""]],
                )
            )
    return EpisodeCounts.join(tables)


def test_a_result_of_two_ways_counts_episodes_and_is_loaded_as_it_was(tmp_path):
    counts = episodes_of_two_ways()
    path = saved(tmp_path, counts, ways=2)
    loaded, loaded_counts = load_with_counts(path)
    assert loaded == result(counts, ways=2)
    assert loaded.ways == 2
    assert [s.episodes for s in loaded.seeds] == [6, 6]
    assert loaded.classes == [6, 7]
    for seed in loaded.seeds:
        own = counts.select(counts.seed == seed.seed)
        assert seed.miou == pytest.approx(miou(own, [6, 7]))
        any_way = own.select(own.class_id == 0)
        assert seed.fb_iou == pytest.approx(fb_iou(any_way))
    for name, column in counts.columns().items():
        assert np.array_equal(getattr(loaded_counts, name), column)


def test_counts_of_another_number_of_ways_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has 3 rows, 1 of class 0, and 1-way episodes have 1"):
        result(episodes_of_two_ways())
    with pytest.raises(ValueError, match="and 3-way episodes have 4"):
        result(episodes_of_two_ways(), ways=3)
    path = saved(tmp_path, episodes_of_two_ways(), ways=2)
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"ways": 1}))
    with pytest.raises(ValueError, match=r"run.v1.json does not follow from run.v1.counts.npz: episode 0"):
        load_with_counts(path)
