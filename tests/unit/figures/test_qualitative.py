"""Predictions side by side: in the order of the papers, with one shot and with more."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from fewseg.data.episodes import EpisodeSpec
from fewseg.metrics import count
from fewseg.recipes.recipe import Evaluation
from fewseg.recipes.registry import variants
from fewseg.reports.figures.model import question_of
from fewseg.reports.figures.qualitative import Qualitative, Restored
from fewseg.reports.marked_pictures import judged, picture_of, spotlight


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


def plainly(model, class_id, support, query):
    """What a support predicts of an image, from the images on; the view is the image: 33 pixels."""
    logits = model.evaluator().plain(EpisodeSpec(0, class_id, query, (support,)), model.fusion(1))
    return (logits[1] > logits[0]).numpy()


def plain_truth(model, class_id, image):
    labels = model.data.source.read_labels(image).numpy()
    return np.where(labels == 255, 255, labels == class_id).astype(np.uint8)


def inter_and_union(mask, truth):
    """Without ignored pixels."""
    return (mask & (truth == 1)).sum(), ((mask & (truth != 255)) | (truth == 1)).sum()


@pytest.mark.parametrize("name", ["scl", "srpnet_f"])
def test_a_support_is_restored_by_its_own_guide_and_its_query_stands_below(study, drawn, name):
    made = study(name)
    Restored(made).make()
    assert made.problems == []
    rows, records = drawn["restored-supports-fold0"]
    (model,) = made.models
    assert [record["on"] for record in records] == ["support", "query"] * 2
    for row, record in zip(rows, records, strict=True):
        target = record[record["on"]]
        picture = picture_of(model.data.source.read_image(target))
        truth = plain_truth(model, record["class"], target)
        mask = plainly(model, record["class"], record["support"], target)
        assert np.array_equal(row[0], spotlight(picture, truth))
        expected = judged(picture, mask, truth)
        assert (row[1] == expected).all(axis=2).mean() > 0.98
        inter, union = inter_and_union(mask, truth)
        assert record[f"iou {model.label}"] == pytest.approx(inter / union, abs=0.01)
    every = [
        (c, *inter_and_union(plainly(model, c, image, image), plain_truth(model, c, image)))
        for c, image in model.supports
    ]
    of_class = [
        sum(inter for own, inter, _ in every if own == c) / sum(union for own, _, union in every if own == c)
        for c in {c for c, _, _ in every}
    ]
    (record,) = drawn["restored-supports-miou"][1]
    assert record["supports"] == len(every)
    assert record["miou"] == pytest.approx(np.mean(of_class), abs=0.01)
    assert record["miou_low"] < record["miou"] < record["miou_high"]


def test_what_self_regularisation_adds_is_a_paired_difference_of_the_same_supports(study, drawn):
    made = study("srpnet_f", "srpnet_cos")
    made.models[1].recipe = replace(made.models[1].recipe, variant=variants()["srpnet"])
    Restored(made).make()
    (claim,) = made.claims
    without, with_it = (record["miou"] for record in drawn["restored-supports-miou"][1])
    assert claim.estimate.value == pytest.approx(with_it - without)
    assert claim.count == len({support.image for support in made.models[0].supports})
    assert claim.quantity == "mIoU on supports of SRPNet less that of SRPNet, fidelity"
