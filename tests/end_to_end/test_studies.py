"""``benchmarks/studies.py`` and ``learning_curve.py``: from recipes to tables by one command."""

import importlib.util
import sys
from pathlib import Path

import pytest

from fewseg.engine.batches import CachedBatches
from fewseg.engine.results import RunResult
from fewseg.recipes.registry import RECIPES
from fewseg.reports.frame import load_results
from fewseg.reports.numbers import with_interval

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    def loaded(name):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return loaded


@pytest.fixture
def steps(monkeypatch):
    """The steps that were trained, of all trainings one after another."""
    seen, stream = [], CachedBatches.stream

    def counted(self, start, stop):
        for step, batch in enumerate(stream(self, start, stop), start):
            seen.append(step)
            yield batch

    monkeypatch.setattr(CachedBatches, "stream", counted)
    return seen


def test_every_recipe_of_a_study_exists(load):
    studies = load("studies")
    assert {name for names in studies.RECIPES.values() for name in names} <= set(RECIPES)
    assert set(studies.get_args(studies.Study)) == set(studies.RECIPES)


def test_a_study_trains_tests_and_tables_and_does_nothing_twice(load, recipes, steps, monkeypatch, capsys):
    studies = load("studies")
    monkeypatch.setitem(studies.RECIPES, "layer4", ("tiny_matcher", "tiny_pfenet"))
    words = ["layer4", "--folds", "0", "--seeds", "0", "1"]
    assert studies.run(words) == 0
    assert steps == [0, 1, 2, 3] * 2
    names = [path.name for path in sorted(Path("results/layer4").glob("*.json"))]
    trained = [f"tiny_pfenet-fold0-seed{s}-{k}shot-average.json" for s in (0, 1) for k in (1, 3)]
    assert names == [*(f"tiny_matcher-fold0-seed0-{k}shot-mean.json" for k in (1, 3)), *trained]
    assert "mean of several trainings" in " ".join(capsys.readouterr().out.split())
    assert studies.run(words) == 0
    assert len(steps) == 8


def test_a_study_that_was_interrupted_goes_on(load, recipes, monkeypatch):
    studies, seen, stream = load("studies"), [], CachedBatches.stream
    monkeypatch.setitem(studies.RECIPES, "layer4", ("tiny_pfenet",))

    def broken(self, start, stop):
        for step, batch in enumerate(stream(self, start, stop), start):
            if len(seen) == 2:
                seen.append("interrupted")
                raise KeyboardInterrupt
            seen.append(step)
            yield batch

    monkeypatch.setattr(CachedBatches, "stream", broken)
    words = ["layer4", "--folds", "0", "--seeds", "0"]
    assert [studies.run(words), studies.run(words)] == [130, 0]
    assert seen == [0, 1, "interrupted", 2, 3]
    assert len(list(Path("results/layer4").glob("*.json"))) == 2


def test_a_study_on_held_out_classes_never_tests_novel_ones(load, recipes, steps, monkeypatch):
    studies = load("studies")
    monkeypatch.setitem(studies.RECIPES, "layer4", ("tiny_matcher", "tiny_pfenet"))
    assert studies.run(["layer4", "--folds", "0", "--seeds", "0", "--held-out", "3", "6"]) == 0
    assert not Path("results/layer4").exists()
    (one, three) = sorted(Path("results/layer4-held-out").glob("*.json"))
    assert [list(RunResult.load(path).classes) for path in (one, three)] == [[3, 6], [3, 6]]
    assert Path("runs/tiny_pfenet-fold0-seed0-3-6/best.safetensors").exists()


def test_a_study_stops_where_a_command_fails(load, recipes, monkeypatch, capsys):
    studies = load("studies")
    monkeypatch.setitem(studies.RECIPES, "layer4", ("tiny_pfenet", "tiny_matcher"))
    assert studies.run(["layer4", "--folds", "0", "--held-out", "1"]) == 1
    assert "held-out classes must be base classes of the fold, (3, 4, 5, 6), got (1,)" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not Path("results").exists()


def test_learning_curves_have_a_column_for_each_number_of_steps(load, recipes, steps, capsys):
    curve = load("learning_curve")
    options = {"recipes": ("tiny_pfenet",), "channels": (4, 8), "sizes": (33,), "fold": 0, "held_out": (5,)}
    curve.main(curve.Options(steps=(1, 2), **options))
    assert steps == [0, 0, 0, 1, 0, 1]  # both widths for one step, then for two
    assert "tiny_pfenet" in capsys.readouterr().out
    curve.main(curve.Options(steps=(1, 2), **options))
    curve.train_and_test(curve.Options(steps=(3,), **options), 3, 41, 8, "tiny_pfenet")
    assert len(steps) == 6 + 3
    results = load_results("results/learning-curve")
    cells = curve.curves(results).set_index(["classes", "width", "size"])
    assert list(cells.columns) == ["method", "seed", "1", "2", "3"]
    assert set(cells.method) == {"tiny_pfenet average, 1-shot"}
    for classes, tested in (("held-out", [5]), ("novel", [1, 2])):
        assert list(cells.loc[classes, "d = 4", "33 px"][["3"]]) == ["-"]
        assert list(cells.loc[classes, "d = 8", "41 px"][["1", "2"]]) == ["-", "-"]
        for width, size, column in ((4, 33, "1"), (8, 33, "2"), (8, 41, "3")):
            (key,) = (
                key
                for key, run in results.runs.items()
                if (run.config["method"]["channels"], list(run.sizes), list(run.classes))
                == (width, [size], tested)
                and run.training["config"]["steps"] == int(column)
            )
            shown = cells.loc[classes, f"d = {width}", f"{size} px"][column]
            assert shown == with_interval(results.estimate(key))
