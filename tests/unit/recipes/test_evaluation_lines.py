"""Which lines ``fewseg evaluate`` makes of a recipe's own and of --ways, --shots, --fusion and --on."""

from dataclasses import replace
from pathlib import Path

import pytest

from fewseg.methods.fusion import IterativeInference, MeanVector
from fewseg.methods.prototypical import PrototypeSegmenter
from fewseg.recipes.evaluation import _lines, evaluate
from fewseg.recipes.recipe import Evaluation
from fewseg.recipes.registry import recipe

OWN = IterativeInference(steps=2, rate=0.5)
"""The method's own iteration, with settings that are not the default ones."""


class Method(PrototypeSegmenter):
    """Nothing but fusions."""

    embed_maps = None

    def __init__(self, fusion):
        super().__init__()
        self.fusion = fusion


RECIPE = replace(
    recipe("voc5i_mini_srpnet"),
    evaluations=(
        Evaluation(shots=1),
        Evaluation(shots=5),
        Evaluation(shots=1, fusion=IterativeInference()),
        Evaluation(ways=2, shots=1),
        Evaluation(shots=1, on="support"),
    ),
)


def lines(ways=(), shots=(), fusions=(), on=None, *, chosen=RECIPE, fusion=OWN):
    found = _lines(chosen, Method(fusion), ways, shots, fusions, on)
    assert all(e.fusion == OWN for e in found if e.fusion.kind == "iterative" and fusion is OWN)
    return [(e.ways, e.shots, e.fusion.kind, e.on) for e in found]


def test_without_wishes_they_are_the_recipes_own():
    assert lines() == [
        (1, 1, "mean", "query"),
        (1, 1, "iterative", "query"),
        (1, 1, "mean", "support"),
        (1, 5, "mean", "query"),
        (2, 1, "mean", "query"),
    ]


@pytest.mark.parametrize(
    "name", ["voc5i_mini_srpnet", "voc5i_mini_matcher", "voc5i_mini_panet", "voc5i_mini_pfenet"]
)
def test_every_line_of_a_recipe_is_made_once(name):
    chosen = recipe(name)
    method = Method(chosen.method.fusion)
    found = _lines(chosen, method, (), (), (), None)
    assert sorted(map(repr, found)) == sorted(map(repr, chosen.evaluations))


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        (
            {"shots": [1]},
            [
                (1, 1, "mean", "query"),
                (1, 1, "iterative", "query"),
                (1, 1, "mean", "support"),
                (2, 1, "mean", "query"),
            ],
        ),
        ({"shots": [3], "ways": [1]}, [(1, 3, "mean", "query"), (1, 3, "iterative", "query")]),
        (
            {"ways": [1], "shots": [5, 1]},
            [
                (1, 5, "mean", "query"),
                (1, 1, "mean", "query"),
                (1, 1, "iterative", "query"),
                (1, 1, "mean", "support"),
            ],
        ),
        (
            {"ways": [3]},
            [(3, 1, "mean", "query"), (3, 1, "iterative", "query"), (3, 5, "mean", "query")],
        ),
        ({"ways": [2]}, [(2, 1, "mean", "query"), (2, 5, "mean", "query")]),
        (
            {"ways": [1], "on": "query"},
            [(1, 1, "mean", "query"), (1, 1, "iterative", "query"), (1, 5, "mean", "query")],
        ),
        ({"ways": [1], "on": "support"}, [(1, 1, "mean", "support"), (1, 5, "mean", "support")]),
        ({"ways": [1], "shots": [1], "fusions": ["mean"]}, [(1, 1, "mean", "query")]),
        (
            {"ways": [2], "shots": [5, 2], "fusions": ["iterative"]},
            [(2, 5, "iterative", "query"), (2, 2, "iterative", "query")],
        ),
        (
            {"ways": [1], "fusions": ["iterative", "mean"], "on": "support"},
            [
                (1, 1, "iterative", "support"),
                (1, 1, "mean", "support"),
                (1, 5, "iterative", "support"),
                (1, 5, "mean", "support"),
            ],
        ),
        (
            {"fusions": ["mean"]},
            [
                (1, 1, "mean", "query"),
                (1, 5, "mean", "query"),
                (2, 1, "mean", "query"),
                (2, 5, "mean", "query"),
            ],
        ),
    ],
)
def test_wishes_choose_among_them_and_add_what_is_missing(wishes, expected):
    assert lines(**wishes) == expected


def test_what_is_missing_takes_the_fusions_of_the_recipe():
    found = lines(shots=[7], ways=[1])
    assert found == [(1, 7, "mean", "query"), (1, 7, "iterative", "query")]


def test_a_fusion_of_the_methods_kind_has_the_methods_settings_and_another_the_default_ones():
    found = _lines(RECIPE, Method(OWN), [1], [1], ["iterative", "mean"], None)
    assert [e.fusion for e in found] == [OWN, MeanVector()]
    found = _lines(RECIPE, Method(MeanVector()), [1], [1], ["iterative"], None)
    assert [e.fusion for e in found] == [IterativeInference()]


def test_a_fusion_that_the_method_cannot_use_is_told_with_those_it_can():
    with pytest.raises(
        ValueError, match="Method cannot use cross-guided, average: give --fusion mean, iterative"
    ):
        lines(fusions=["mean", "cross-guided", "average"])


@pytest.mark.parametrize("wish", [{"ways": [2]}, {"shots": [1]}, {"seeds": [1]}, {"episodes": 5}])
def test_manifests_leave_no_room_for_wishes_about_episodes(wish):
    with pytest.raises(ValueError, match="leave --ways, --shots, --episodes, --seeds and --protocol out"):
        evaluate("voc5i_mini_matcher", manifests=[Path("m.json")], **wish)


def test_no_episodes_are_refused():
    with pytest.raises(ValueError, match="--episodes 0: give one episode a seed at least"):
        evaluate("voc5i_mini_matcher", episodes=0)
