"""Predictions side by side: in the order of the papers, with one shot and with more."""

import csv
from dataclasses import replace

from fewseg.metrics import count
from fewseg.recipes.recipe import Evaluation
from fewseg.reports.figures.model import question_of
from fewseg.reports.figures.qualitative import Qualitative


def test_methods_stand_in_the_order_of_the_paper(study):
    made = study("sdaanet", "sdaanet_sdpm", "sdaanet_saam", "sdaanet_baseline")
    (models,) = Qualitative(made).by_fold().values()
    assert [s.label for s in models] == ["baseline", "baseline + SAAM", "baseline + SDPM", "SD-AANet"]


def test_five_shots_are_columns_beside_one_of_the_same_queries(study):
    made = study("scl", "sdaanet_baseline", shots=(1, 5))
    scl = made.models[0]
    evaluations = (*scl.recipe.evaluations, Evaluation(shots=5, fusion=scl.recipe.evaluations[0].fusion))
    made.models = [replace(scl, recipe=replace(scl.recipe, evaluations=evaluations)), made.models[1]]
    Qualitative(made).make()
    assert made.problems == []
    with (made.options.out / "pictures" / "qualitative-fold0.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name.startswith("iou")]
    assert names == ["iou SCL (PFENet)", "iou SCL (PFENet), 5-shot", "iou baseline"]
    model = made.models[0]
    for shots, name in ((1, names[0]), (5, names[1])):
        every = {(str(seed), str(spec.index)): spec for seed, spec in model.episodes(shots)}
        specs = [every[row["seed"], row["episode"]] for row in rows]
        assert [spec.query for spec in specs] == [row["query"] for row in rows]
        assert [spec.supports[0] for spec in specs] == [row["support"] for row in rows]
        found = dict(model.predictions(specs, shots))
        for spec, row in zip(specs, rows, strict=True):
            counts = count(found[question_of(spec)], model.picture(spec.query, spec.class_id)[1])
            assert float(row[name]) == float(counts.fg_inter) / max(int(counts.fg_union), 1)


def test_shots_that_no_recipe_is_tested_with_are_reported(study):
    made = study("scl", shots=(1, 3))
    Qualitative(made).make()
    assert made.problems == ["qualitative, fold 0: no checkpoint's recipe is tested with 3 shots"]
