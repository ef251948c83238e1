"""The recipes that change what training makes of novel classes change nothing else."""

from dataclasses import replace

import pytest

from fewseg.recipes.registry import recipe, variant


@pytest.mark.parametrize(
    ("ending", "rule"), [("ignored", {"novel_pixels": "ignored"}), ("left_out", {"drop_novel": True})]
)
@pytest.mark.parametrize("method", ["pfenet", "scl"])
def test_they_differ_from_the_plain_recipe_in_one_field_of_the_training(method, ending, rule):
    plain, chosen = recipe(f"voc5i_mini_{method}"), recipe(f"voc5i_mini_{method}_novel_{ending}")
    assert chosen.train == replace(plain.train, **rule) != plain.train
    assert replace(chosen, name=plain.name, variant=plain.variant, train=plain.train) == plain
    assert variant(chosen.variant.name).one_part_less == (plain.variant.name,)
