"""Whatever is edited in a result file or its counts is found."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fewseg.data.folds import pascal_5i
from fewseg.data.protocols import Protocol
from fewseg.engine.results import RunResult, counts_path, load_with_counts
from fewseg.methods.fusion import MeanVector
from fewseg.reports.comparison import what_differs
from result_files import make_counts, make_result, write_sealed

PROTOCOL = Protocol(name="mini", episodes=30, seeds=(0, 1), min_area=64)


@pytest.fixture
def path(tmp_path):
    """A saved result of fold 0 of PASCAL-5i."""
    counts = make_counts()
    columns = counts.columns() | {
        "class_id": np.resize([1, 2, 3, 4, 5], len(counts)),
        "supports": np.resize(["s1"], (len(counts), 1)),
    }
    counts = type(counts)(**columns)
    path = tmp_path / "result.json"
    result = make_result(
        counts,
        classes=[1, 2, 3, 4, 5],
        protocol=PROTOCOL,
        config={"method": {"type": "PFENet"}, "fusion": MeanVector()},
        sizes=(241,),
        output_sizes=(241, 353),
        precision="bf16",
        train_seed=0,
        checkpoint="ab",
        class_split=pascal_5i(0),
        training={"step": 100},
    )
    result.save(path, counts)
    return path


def edit(path, *keys, value):
    stored = part = json.loads(path.read_text())
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    path.write_text(json.dumps(stored))


EDITS = {
    ("miou_ci95",): [0.1, 0.9],
    ("shots",): 5,
    ("fold",): 1,
    ("dataset",): "pascal-5i",
    ("method",): "scl-pfenet",
    ("recipe",): "another",
    ("variant",): "another",
    ("train_seed",): 1,
    ("episodes",): "recorded",
    ("fusion",): "average",
    ("on",): "support",
    ("precision",): "fp32",
    ("sizes",): [473],
    ("output_sizes",): [321, 473],
    ("data",): "ab",
    ("config", "method"): {},
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
def test_any_edit_of_a_sealed_result_is_refused(path, keys):
    assert load_with_counts(path)[0] == RunResult.load(path)
    edit(path, *keys, value=EDITS[keys])
    with pytest.raises(ValueError, match="the file was edited; evaluate again"):
        load_with_counts(path)
    with pytest.raises(ValueError, match="the file was edited; evaluate again"):
        RunResult.load(path)


@pytest.mark.parametrize("key", ["digest", "counts_sha256"])
def test_a_seal_cannot_be_left_out(path, key):
    stored = json.loads(path.read_text())
    stored.pop(key)
    path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=rf"missing keys \['{key}'\]"):
        RunResult.load(path)


def test_results_without_output_sizes_are_those_of_before_they_existed(path):
    result, counts = load_with_counts(path)
    assert result.output_sizes == (241, 353)
    edit(path, "output_sizes", value=None)
    with pytest.raises(ValueError, match="output_sizes is None and must be list"):
        RunResult.load(path)
    replace(result, output_sizes=()).save(path, counts)
    assert "output_sizes" not in json.loads(path.read_text())
    assert RunResult.load(path).output_sizes == ()


def test_other_counts_of_the_same_scores_are_refused(path):
    columns = dict(np.load(counts_path(path)))
    columns["query"] = columns["query"][::-1]
    np.savez(counts_path(path), **columns)
    RunResult.load(path)  # does not look at them
    with pytest.raises(ValueError, match=r"is not the file that result\.json was scored from"):
        load_with_counts(path)


def test_a_protocol_of_a_newer_fewseg_is_taken_where_its_file_has_the_seal(path):
    stored = json.loads(path.read_text())
    stored["protocol"]["crop"] = "centre"
    write_sealed(path, stored)
    assert load_with_counts(path)[0].protocol["crop"] == "centre"


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_a_result_of_an_earlier_schema_is_evaluated_again(path, schema):
    edit(path, "schema", value=schema)
    with pytest.raises(ValueError, match=rf"schema {schema}; this fewseg reads schema 4: evaluate again"):
        load_with_counts(path)


def test_protocols_that_differ_are_reported_whatever_their_digests_say(path):
    result = RunResult.load(path)
    stored = json.loads(path.read_text())
    stored["protocol"] |= {"type": "Protokoll", "min_area": 1}
    write_sealed(path, stored)
    assert what_differs(result, RunResult.load(path)) == [
        "protocol min_area: 64 and 1",
        "protocol type: Protocol and Protokoll",
    ]
