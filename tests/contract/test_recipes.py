"""What every recipe promises: its parts fit each other, and its words say what they must."""

import inspect
import re

import pytest

from fewseg.decoders.prior import PriorMap
from fewseg.engine.config_json import config_from_json
from fewseg.engine.result_schema import as_json
from fewseg.methods.registry import METHODS
from fewseg.recipes.recipe import Recipe
from fewseg.recipes.registry import RECIPES, recipe


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
            assert config_from_json(as_json(part)) == part
    for evaluation in chosen.evaluations:
        assert config_from_json(as_json(evaluation.fusion)) == evaluation.fusion


def test_its_docstring_says_what_it_is(chosen):
    text = inspect.getdoc(RECIPES[chosen.name])
    assert text
    if chosen.name.startswith("pascal_"):
        published = re.search(r"Published mean mIoU: (?:none|[\d.]+ \(1-shot\))", text)
        assert published
        assert re.search(r"Table \d", text) or published[0].endswith("none")
        assert "Hardware of the paper" in text
        assert "Deviations" in text
