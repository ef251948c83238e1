"""Which lines ``fewseg evaluate`` makes of a recipe's own and of the options."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fewseg.methods.canet import CANetConfig, Refinement
from fewseg.methods.fusion import IterativeInference, MeanVector
from fewseg.methods.prototypical import PrototypeSegmenter
from fewseg.recipes import run
from fewseg.recipes.evaluation import _at_scales, _file_name, _lines, evaluate
from fewseg.recipes.options import EvaluateOptions
from fewseg.recipes.recipe import Evaluation
from fewseg.recipes.registry import recipe

OWN = IterativeInference(steps=2, rate=0.5)
"""The method's own iteration, with settings that are not the default ones."""


class Method(PrototypeSegmenter):
    """Nothing but fusions."""

    embed_maps = None

    def __init__(self, fusion):
        torch.nn.Module.__init__(self)
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


def of(ways=(), shots=(), fusions=(), on=None, *, chosen=RECIPE, fusion=OWN):
    options = EvaluateOptions(what="", ways=ways, shots=shots, fusion=fusions, on=on)
    return _lines(chosen, Method(fusion), options)


def lines(fusion=OWN, **wishes):
    found = of(**wishes, fusion=fusion)
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
    found = of(chosen=chosen, fusion=chosen.method.fusion)
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
            {"ways": [3]},
            [(3, 1, "mean", "query"), (3, 1, "iterative", "query"), (3, 5, "mean", "query")],
        ),
        ({"ways": [2]}, [(2, 1, "mean", "query"), (2, 5, "mean", "query")]),
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
    ],
)
def test_wishes_choose_among_them_and_add_what_is_missing(wishes, expected):
    assert lines(**wishes) == expected


def test_a_fusion_of_the_methods_kind_has_the_methods_settings_and_another_the_default_ones():
    found = of([1], [1], ["iterative", "mean"])
    assert [e.fusion for e in found] == [OWN, MeanVector()]
    found = of([1], [1], ["iterative"], fusion=MeanVector())
    assert [e.fusion for e in found] == [IterativeInference()]


def test_a_line_of_the_recipe_that_has_settings_of_its_own_keeps_them():
    own = IterativeInference(guard=False)
    chosen = replace(RECIPE, evaluations=(Evaluation(shots=1, fusion=own), Evaluation(shots=5)))
    assert [e.fusion for e in of(chosen=chosen)] == [own, MeanVector()]


def test_a_fusion_that_the_method_cannot_use_is_reported_with_those_it_can():
    with pytest.raises(
        ValueError, match="Method cannot use the fusion 'cross-guided': choose one of mean, iterative"
    ):
        lines(fusions=["mean", "cross-guided", "average"])


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ({}, {(): "", (241, 353): "-241+353", ((241, 353),): "-to-241+353"}),
        ({"sizes": (241, 353)}, {(241, 353): "-241+353"}),
        ({"sizes": (353,), "output_sizes": (241,)}, {(353, (241,)): "-353-to-241"}),
        ({"output_sizes": (473, 321)}, {((473, 321),): "-to-473+321"}),
    ],
)
def test_sizes_of_inputs_and_of_outputs_replace_those_of_a_recipes_lines(wishes, expected):
    chosen = recipe("voc5i_mini_sdaanet")
    options = EvaluateOptions(what="", shots=(1,), **wishes)
    found = _lines(chosen, Method(chosen.method.fusion), options)
    sides = [(*e.sizes, *([e.output_sizes] if e.output_sizes else [])) for e in found]
    assert sorted(map(str, sides)) == sorted(map(str, expected))
    for line, side in zip(found, sides, strict=True):
        metadata = {"recipe": chosen.name, "fold": 0, "train_seed": 0, "episodes": "drawn"}
        name = _file_name(line, metadata, "")
        assert name == f"voc5i_mini_sdaanet-fold0-seed0-1shot-mean{expected[side]}.json"


@pytest.mark.parametrize("wish", [{"ways": (2,)}, {"shots": (1,)}, {"seeds": (1,)}, {"episodes": 5}])
def test_manifests_leave_no_room_for_wishes_about_episodes(wish):
    with pytest.raises(
        ValueError, match=r"manifests set ways, shots.*leave --ways, --shots, --episodes, --seeds"
    ):
        evaluate(EvaluateOptions(what="voc5i_mini_matcher", manifest=(Path("m.json"),), **wish))


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"episodes": 0}, "--episodes must be at least 1, got 0"),
        ({"processes": 0}, "--processes 0 and --ray-workers 0: give at least one process"),
        ({"processes": 2, "ray_workers": 2}, "give at least one process, or Ray workers in their place"),
        ({"sizes": (241, 240)}, r"--sizes must be different sides of 8k \+ 1 pixels, got 241 240"),
        ({"sizes": (241, 241)}, "--sizes must be different"),
        ({"output_sizes": (241, 240)}, "--output-sizes must be different sides"),
    ],
)
def test_options_out_of_range_are_refused(wish, message):
    with pytest.raises(ValueError, match=message):
        evaluate(EvaluateOptions(what="voc5i_mini_matcher", **wish))


@pytest.mark.parametrize("fast", ["fp32", "bf16"])
def test_the_precision_is_what_the_machine_has_but_fp32_for_what_was_trained_in_it(monkeypatch, fast):
    monkeypatch.setattr(run, "precision_on", lambda device: fast)
    assert run.precision_of(recipe("voc5i_mini_matcher")) == fast
    assert run.precision_of(recipe("voc5i_mini_pfenet")) == fast
    assert run.precision_of(recipe("pascal_pfenet_resnet50")) == "fp32"


@pytest.mark.parametrize("fast", ["fp32", "bf16"])
def test_training_in_bfloat16_warns_where_the_machine_has_none(monkeypatch, tmp_path, caplog, fast):
    monkeypatch.setattr(run, "precision_on", lambda device: fast)
    chosen = recipe("voc5i_mini_pfenet")
    chosen = replace(chosen, train=replace(chosen.train, precision="bf16-mixed"))
    with pytest.raises(AttributeError, match="train"):  # there is no data
        run.train_recipe(chosen, object(), tmp_path)
    warned = any("--train.precision 32-true" in message for message in caplog.messages)
    assert warned == (fast == "fp32")


@pytest.mark.parametrize(("fast", "used"), [("fp32", "32-true"), ("bf16", "bf16-mixed")])
def test_a_training_of_automatic_precision_is_of_what_the_machine_does_well(
    monkeypatch, tmp_path, caplog, fast, used
):
    found = []
    monkeypatch.setattr(run, "precision_on", lambda device: fast)
    monkeypatch.setattr(run, "_train", lambda recipe, config, *_: found.append((recipe.train, config)))
    chosen = recipe("voc5i_mini_pfenet")
    assert chosen.train.precision == "auto"
    run.train_recipe(chosen, object(), tmp_path)
    assert found == [(replace(chosen.train, precision=used),) * 2]
    assert run.precision_of(replace(chosen, train=found[0][0])) == fast


@pytest.mark.parametrize("early", [True, False])
def test_scales_of_images_say_that_refinement_does_not_stop_early(early, caplog):
    config = CANetConfig(refinement=Refinement(stop_early=early))
    assert _at_scales(config, (0.7, 1.0)).refinement == Refinement(image_scales=(0.7, 1.0))
    lines = ["--image-scales: refinement.stop_early is off, as the answer of all scales is refined together"]
    assert caplog.messages == lines * early
