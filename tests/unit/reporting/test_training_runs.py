"""Folders of training runs: losses as written, and the results that belong to them."""

import hashlib
import json
from math import isnan

import pytest

from fewseg.engine.checkpoint import Checkpoint, save_checkpoint
from fewseg.methods.matcher import MatcherConfig
from fewseg.reports.frame import results_of
from fewseg.reports.options import SiteOptions
from fewseg.reports.site.build import write_site
from fewseg.reports.site.training_runs import drawn_names, read_losses, read_runs
from result_files import make_counts, make_result
from small_segmenters import small_backbone

CONFIG = MatcherConfig(backbone=small_backbone("layer2", "layer3"))


def lines(*steps, **more):
    return "".join(json.dumps({"step": s, "total": 1.0 / s, "lr": 0.1, **more}) + "\n" for s in steps)


@pytest.fixture
def run(tmp_path):
    """Makes a run folder; with a checkpoint, returns its digest."""

    def made(name, text, checkpoint="", recipe="r", fold=1, seed=0):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "losses.jsonl").write_text(text)
        if not checkpoint:
            return ""
        split = {"name": "x", "fold": fold, "base": [3], "novel": [1, 2]}
        about = Checkpoint(
            config=CONFIG, recipe=recipe, class_split=split, training={"config": {"seed": seed}, "step": 40}
        )
        save_checkpoint(folder / checkpoint, CONFIG.build(), about)
        return hashlib.sha256((folder / checkpoint).read_bytes()).hexdigest()[:16]

    return made


@pytest.fixture
def found():
    """(name=(recipe, fold, seed, checkpoint), ...) -> results."""

    def made(**runs):
        return results_of(
            {
                name: make_result(
                    make_counts(fold), fold, recipe=recipe, train_seed=seed, checkpoint=checkpoint
                )
                for name, (recipe, fold, seed, checkpoint) in runs.items()
            }
        )

    return made


def test_losses_are_read_as_written(tmp_path):
    path = tmp_path / "losses.jsonl"
    path.write_text(lines(20, 40, query=0.25))
    losses, damaged = read_losses(path)
    assert list(losses.index) == [20, 40]
    assert losses.to_dict("list") == {"total": [0.05, 0.025], "lr": [0.1, 0.1], "query": [0.25, 0.25]}
    assert damaged == []


def test_damaged_lines_are_passed_over_and_named(tmp_path):
    path = tmp_path / "losses.jsonl"
    bad = [
        '{"step": 60, "tot',
        "[1]",
        '{"total": 1}',
        '{"step": "70", "total": 1}',
        '{"step": 20, "total": 9}',
    ]
    path.write_text(lines(20, 40) + "\n".join(bad) + "\n" + '{"step": 80, "total": NaN, "lr": 0.1}\n')
    losses, (damaged,) = read_losses(path)
    assert list(losses.index) == [20, 40, 80]
    assert losses.total.tolist()[:2] == [0.05, 0.025]
    assert isnan(losses.total[80]), "what is not finite has no point"
    assert damaged.startswith("lines 3, 4, 5, 6, 7 of 8 passed over")


def test_a_file_without_a_line_is_named(tmp_path):
    path = tmp_path / "losses.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    losses, damaged = read_losses(path)
    assert not len(losses)
    assert "no line that can be read" in damaged[-1]


def test_a_run_belongs_to_the_results_of_its_checkpoint(run, found, tmp_path):
    digest = run("any-name", lines(20, 40), checkpoint="best.safetensors")
    results = found(
        same=("r", 1, 0, digest),
        again=("r", 1, 0, "0" * 16),
        other_fold=("r", 0, 0, "1" * 16),
        other_seed=("r", 1, 1, "2" * 16),
    )
    (read,), problems = read_runs(tmp_path / "runs", results)
    assert problems == []
    assert (read.recipe, read.fold, read.seed, read.digest) == ("r", 1, 0, digest)
    assert (read.results, read.retrained) == (("same.json",), ("again.json",))


def test_a_run_that_goes_on_is_known_by_its_last_checkpoint_and_without_one_by_its_folder(
    run, found, tmp_path
):
    run("a", lines(20), checkpoint="last.safetensors", recipe="q", fold=0, seed=3)
    run("fresh", lines(20))
    results = found(mine=("q", 0, 3, "x"), unknown=("other", 0, 0, ""))
    (second, first), _ = read_runs(tmp_path / "runs", results)
    assert (first.digest, first.results, first.retrained) == ("", (), ("mine.json",))
    assert (second.recipe, second.fold, second.seed, second.label) == ("fresh", None, None, "fresh")
    assert second.results == (), "a run without a checkpoint owns no result of an unknown one"


def test_a_single_term_is_drawn_once_and_the_rate_not_at_all(run, tmp_path):
    run(
        "one",
        "".join(json.dumps({"step": s, "query": s / 8, "total": s / 8, "lr": 1}) + "\n" for s in (1, 2)),
    )
    ((read,), _) = read_runs(tmp_path / "runs", results_of({}))
    assert drawn_names([read]) == ["total"]
    run("two", lines(1, 2, query=0.25))
    runs, _ = read_runs(tmp_path / "runs", results_of({}))
    assert drawn_names(runs) == ["total", "query"]


def test_the_page_has_the_losses_and_what_is_wrong_with_them(run, write, tmp_path):
    run("r-fold0-seed0", lines(20, 40) + "{broken\n", checkpoint="last.safetensors", fold=0)
    run("r-fold1-seed0", "broken\n")
    site = write_site(
        SiteOptions(folder=write("x").parent, out=tmp_path / "site.html", runs=tmp_path / "runs", quiet=True)
    )
    text = site.path.read_text()
    assert 'id="learning"' in text
    assert 'download="r-losses.csv"' in text
    assert "fold 0, seed 0" in text
    assert any(line.startswith("r-fold0-seed0/losses.jsonl: line 3 of 3") for line in site.problems)
    assert any("r-fold1-seed0/losses.jsonl: it has no line" in line for line in site.problems)
