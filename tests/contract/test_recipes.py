"""What every recipe promises: its parts fit each other, and its words say what they must."""

import inspect
import re
from dataclasses import replace

import pytest

from fewseg.engine.config_json import config_from_json
from fewseg.engine.results import as_json
from fewseg.methods.fusion import FUSIONS
from fewseg.methods.layers import PriorMap
from fewseg.methods.registry import METHODS
from fewseg.recipes.recipe import Recipe
from fewseg.recipes.registry import RECIPES, recipe
from fewseg.reports.published import ROMAN, printed_as, published_values
from result_files import make_counts, make_result


@pytest.fixture(params=RECIPES)
def chosen(request):
    return recipe(request.param)


def levels_read(config):
    levels = {*getattr(config, "mid_levels", ()), *getattr(config, "levels", ())}
    levels |= {config.level} if hasattr(config, "level") else set()
    return levels | set(getattr(config, "prior", PriorMap()).levels if hasattr(config, "prior") else ())


def test_a_recipe_is_named_as_the_function_that_makes_it(chosen):
    assert isinstance(chosen, Recipe)
    assert RECIPES[chosen.name].__name__ == chosen.name
    assert RECIPES[chosen.name]() == chosen


def test_its_method_is_registered_and_reads_only_levels_that_the_backbone_gives(chosen):
    assert type(chosen.method) in METHODS.values()
    assert levels_read(chosen.method) <= set(chosen.method.backbone.levels)


def test_images_are_of_8k_plus_1_pixels_and_training_sees_the_size_of_the_test(chosen):
    assert chosen.size % 8 == 1
    if chosen.train is not None:
        assert chosen.train.view.size == chosen.size


def test_it_has_something_to_evaluate_without_repeats_as_many_shots_as_it_trains_among_it(chosen):
    assert len(set(chosen.evaluations)) == len(chosen.evaluations)
    trained = chosen.train.shots if chosen.train is not None else 1
    assert trained in {e.shots for e in chosen.evaluations}


def test_only_a_frozen_backbone_is_cached(chosen):
    if chosen.train is not None and chosen.train.cached_views:
        assert chosen.method.backbone.fixed


def test_its_parts_come_back_from_json(chosen):
    for part in (chosen.method, chosen.train, chosen.protocol, *chosen.evaluations):
        if part is None or not type(part).__module__.startswith("fewseg.recipes"):
            assert config_from_json(as_json(part), type(part)) == part
    for evaluation in chosen.evaluations:
        assert config_from_json(as_json(evaluation.fusion), *FUSIONS.values()) == evaluation.fusion


def is_of_a_paper(name):
    return name.startswith(("pascal_", "coco_")) and not name.startswith("coco_mini_")


RESULT = make_result(make_counts())
DATASETS = {"pascal": "pascal-5i", "coco": "coco-20i"}


def printed(chosen):
    """The paper's value for each line of a recipe."""
    dataset = DATASETS[chosen.name.split("_")[0]]
    for line in chosen.evaluations:
        changes = {name: getattr(line, name) for name in ("ways", "shots", "on", "sizes", "output_sizes")}
        changes |= {"dataset": dataset, "fusion": line.fusion.kind, "variant": chosen.variant.name}
        changes |= {"recipe": chosen.name, "config": as_json({"method": chosen.method})}
        _, found = printed_as(replace(RESULT, **changes))
        if found is not None:
            yield line, found


AUTHORS = {"scl": "SCL (Zhang et al. 2021)", "srpnet": "SRPNet (Ding et al. 2022)"}
AUTHORS |= {"sd-aanet": "SD-AANet (Zhao et al. 2022)"}


def test_its_docstring_names_the_tables_that_print_it_and_its_deviations_from_the_paper(chosen):
    text = " ".join((inspect.getdoc(RECIPES[chosen.name]) or "").split())
    assert text
    if is_of_a_paper(chosen.name):
        assert "Deviations: " in text
        for _, found in printed(chosen):
            assert AUTHORS[found.paper] in text
            number = ROMAN[int(found.table)] if found.paper == "sd-aanet" else found.table
            lists = re.findall(r"Tables? ([^.;]*)", text)
            assert any(number in re.findall(r"[IV]+|\d", listed) for listed in lists)


def rows_reached():
    """(paper, table, row, shots) of every value that a line of a recipe stands beside, in all its tables."""
    reached = {
        (found.paper, found.table, found.row, line.shots)
        for name in RECIPES
        if is_of_a_paper(name)
        for line, found in printed(recipe(name))
    }
    for first, *others in SAME_MODEL:
        reached |= set(others) if first in reached else set()
    return reached


SAME_MODEL = [
    (
        ("scl", "1", "CANet", 1),
        ("scl", "3", "CANet", 1),
        ("scl", "4", "baseline", 1),
        ("sd-aanet", "1", "CANet", 1),
    ),
    (("scl", "1", "CANet", 5), ("scl", "3", "CANet", 5), ("sd-aanet", "1", "CANet", 5)),
    (("scl", "1", "PFENet", 1), ("scl", "3", "PFENet", 1), ("sd-aanet", "1", "PFENet", 1)),
    (("scl", "1", "PFENet", 5), ("sd-aanet", "1", "PFENet", 5)),
    *((("scl", "1", "PANet", k), ("sd-aanet", "1", "PANet", k)) for k in (1, 5)),
    *((("scl", "2", "PFENet", k), ("sd-aanet", "2", "PFENet", k)) for k in (1, 5)),
    *((("scl", "2", "SCL (PFENet)", k), ("sd-aanet", "2", "SCL", k)) for k in (1, 5)),
    (
        ("scl", "1", "SCL (CANet)", 1),
        ("scl", "3", "SCL (CANet)", 1),
        ("scl", "4", "SGM", 1),
        ("scl", "5", "v_pri + v_aux", 1),
        ("scl", "6", "L_ce^s1 + L_ce^s2", 1),
    ),
    (("scl", "1", "SCL (CANet)", 5), ("scl", "3", "SCL (CANet)", 5), ("scl", "4", "SGM + CGM", 5)),
    *(
        (("scl", "1", "SCL (PFENet)", k), ("scl", "3", "SCL (PFENet)", k), ("sd-aanet", "1", "SCL", k))
        for k in (1, 5)
    ),
    (("sd-aanet", "1", "Baseline", 1), ("sd-aanet", "3", "Baseline", 1)),
    (
        ("sd-aanet", "3", "SD-AANet", 1),
        ("sd-aanet", "1", "SD-AANet", 1),
        ("sd-aanet", "4", "Single-scale Inference", 1),
    ),
    (("sd-aanet", "5", "Separate Strategy", 5), ("sd-aanet", "1", "SD-AANet", 5)),
]
"""The rows that one model has in several tables; the values of a line are those of the first."""

QUOTED = {"OSLSM", "SG-One", "PGNet", "CRNet", "RPMMs", "FWB", "PPNet", "DAN"}
QUOTED |= {"co-FCN", "AMP", "SimPropNet", "ASGNet"}
"""Other people's rows in SCL's Tables 1 and 2 and SD-AANet's I and II, of which recipes name one each."""

NO_RECIPE = {("sd-aanet", "2", "PANet", shots) for shots in (1, 5)}
"""PANet on COCO, of which no paper here says how it was trained."""


def test_every_row_of_scls_and_sd_aanets_tables_is_a_line_of_a_recipe():
    rows = {(v.paper, v.table, v.row, v.shots) for v in published_values() if v.row not in QUOTED}
    assert {row for row in rows if row[0] in ("scl", "sd-aanet")} - rows_reached() == NO_RECIPE


def test_a_model_in_several_tables_has_the_same_values_in_all():
    values = {(v.paper, v.table, v.row, v.shots, v.column): v.percent for v in published_values()}
    for first, *others in SAME_MODEL:
        for other in others:
            shared = [column for *row, column in values if tuple(row) == other]
            assert shared
            for column in shared:
                assert values.get((*first, column), values[*other, column]) == values[*other, column]


@pytest.mark.parametrize(
    "name", [n for n in RECIPES if re.match("(pascal|coco)_(pfenet|scl|canet|sdaanet)", n)]
)
def test_the_backbone_is_the_methods_own_of_another_depth(name):
    method = recipe(name).method
    depth = "resnet101" if name.startswith("coco_") else "resnet50"
    assert method.backbone == replace(type(method)().backbone, name=depth)


@pytest.mark.parametrize("part", ["canet", "canet_attention", "scl_canet"])
def test_canets_refinements_and_history_are_the_papers(part):
    method = recipe(f"pascal_{part}_resnet50").method
    assert (method.refinement.iterations, method.refinement.stop_early) == (4, False)
    assert method.history_reset == 0.7


@pytest.mark.parametrize(
    "part", ["pfenet_473", "sdaanet_baseline_473", "sdaanet_473", "sdaanet_separate_473"]
)
def test_a_row_with_a_dagger_is_the_same_model_on_labels_at_473(part):
    dagger, plain = recipe(f"coco_{part}_resnet101"), recipe(f"coco_{part.removesuffix('_473')}_resnet101")
    assert (dagger.protocol.label_size, plain.protocol.label_size) == (473, "original")
    if part == "pfenet_473":  # under PFENet's own protocol
        assert (dagger.protocol.episodes, len(dagger.protocol.seeds)) == (20_000, 1)
    assert replace(dagger, name=plain.name, variant=plain.variant, protocol=plain.protocol) == plain
