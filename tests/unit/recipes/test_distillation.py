"""The recipes of SD-AANet with other teachers differ from the plain one in the distillation alone."""

from dataclasses import replace

import pytest

from fewseg.methods.sdaanet import PrintedSeparateTeachers, PrototypeTeacher, SeparateTeachers, UnitTeachers
from fewseg.recipes.recipe import PLAIN
from fewseg.recipes.registry import recipe

TEACHERS = {
    "printed": {"distillation": PrintedSeparateTeachers()},
    "detached": {"distillation": SeparateTeachers(detach=True)},
    "unit": {"distillation": UnitTeachers()},
    "released": {"distillation": PrototypeTeacher(), "distillation_weight": 50.0},
}


@pytest.mark.parametrize("name", TEACHERS)
def test_they_differ_in_the_distillation_alone(name):
    plain, chosen = recipe("voc5i_mini_sdaanet"), recipe(f"voc5i_mini_sdaanet_{name}")
    method = replace(plain.method, **TEACHERS[name])
    same = {"name": plain.name, "variant": plain.variant, "evaluations": plain.evaluations}
    assert replace(chosen, **same) == replace(plain, method=method)
    assert chosen.evaluations == PLAIN
    assert chosen.variant.one_part_less == ("sdaanet_saam", "sdaanet")
