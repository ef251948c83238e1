"""Train, evaluate, compare and table, as a user does it, on a set that is rendered in a moment."""

import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from fewseg.backbones import ScaledBackbone
from fewseg.cli import main
from fewseg.data.episodes import EpisodeSampler
from fewseg.data.transforms import EvalView
from fewseg.engine import results, train
from fewseg.engine.batches import CachedBatches
from fewseg.engine.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from fewseg.engine.evaluate import Evaluator, Line
from fewseg.engine.features import FeatureStore
from fewseg.engine.results import RunResult, load_counts, load_with_counts
from fewseg.inference.model import load_model
from fewseg.inference.options import ModelOptions
from fewseg.methods.canet import Refinement
from fewseg.methods.fusion import CrossGuided
from fewseg.methods.pfenet import PFENet
from fewseg.methods.scl import SCLCANetConfig
from fewseg.ops.files import folder_alone
from fewseg.recipes import evaluation
from fewseg.recipes import evaluation as recipe_run
from fewseg.recipes.options import EvaluateOptions
from fewseg.recipes.registry import RECIPES
from fewseg.recipes.resolve import build_method
from fewseg.recipes.run import precision_of

PFENET, SCL = "runs/tiny_pfenet-fold0-seed0/best.safetensors", "runs/tiny_scl-fold0-seed0/best.safetensors"


def test_two_methods_are_trained_evaluated_compared_and_tabled(recipes, tmp_path, capsys):
    for name, checkpoint in (("tiny_pfenet", PFENET), ("tiny_scl", SCL)):
        assert main(["train", name, "--quiet"]) == 0
        assert f"test it: fewseg evaluate {checkpoint}" in capsys.readouterr().out
        assert main(["evaluate", checkpoint, "--quiet"]) == 0
    lines = ("pfenet 1shot-average", "pfenet 3shot-average", "scl 1shot-average", "scl 3shot-average")
    lines += ("scl 3shot-cross-guided",)
    files = result_names()
    assert files == [f"tiny_{line.replace(' ', '-fold0-seed0-')}.json" for line in lines]
    for file in files:
        result, counts = load_with_counts(tmp_path / "results" / file)
        assert len(counts) == 12
        assert set(counts.class_id.tolist()) == {1, 2}
        assert counts.supports.shape[1] == result.shots
        assert result.checkpoint == read_checkpoint(tmp_path / (PFENET if "pfenet" in file else SCL)).digest
        assert result.training["config"]["steps"] == 4
        assert result.class_split["novel"] == [1, 2]
        stored = json.loads((tmp_path / "results" / file).read_text())
        assert 0 <= stored["miou_mean"] <= 1
        assert stored["protocol"]["name"] == "tiny"
    capsys.readouterr()
    pair = [f"results/tiny_{name}-fold0-seed0-3shot-average.json" for name in ("pfenet", "scl")]
    assert main(["compare", *pair]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "scl-pfenet average, 3-shot, tiny fold 0 against pfenet average, 3-shot, tiny fold 0" in out
    assert main(["table", "results", "--by-size"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert all(text in out for text in ("scl", "pfenet", "gain in mIoU"))
    different = ["results/tiny_scl-fold0-seed0-1shot-average.json", pair[0]]
    assert main(["compare", *different]) == 1
    assert "not comparable" in capsys.readouterr().err


def test_an_interrupted_training_goes_on_by_the_same_command(recipes, tmp_path, capsys, monkeypatch):
    stream = CachedBatches.stream

    def broken(self, start, stop):
        for step, batch in enumerate(stream(self, start, stop), start):
            if step == 3:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(CachedBatches, "stream", broken)
        assert main(["train", "tiny_scl", "--quiet"]) == 130
    assert "the same command goes on from the last checkpoint" in " ".join(capsys.readouterr().err.split())
    assert read_checkpoint(tmp_path / "runs/tiny_scl-fold0-seed0/last.safetensors").training["step"] == 3
    assert main(["train", "tiny_scl", "--quiet"]) == 0
    assert main(["train", "tiny_scl", "--quiet", "--out", "unbroken"]) == 0
    found, unbroken = tmp_path / SCL, tmp_path / "unbroken/best.safetensors"
    assert read_checkpoint(found).training == read_checkpoint(unbroken).training
    assert found.read_bytes() == unbroken.read_bytes()


def test_a_checkpoint_is_not_tested_on_classes_that_it_was_trained_on(recipes, capsys):
    assert main(["train", "tiny_pfenet", "--quiet", "--train.steps", "1", "--train.validate-every", "0"]) == 0
    assert main(["evaluate", PFENET, "--fold", "1", "--quiet"]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "trained on tiny fold 0, the test is on tiny fold 1" in error
    assert "classes [3, 4] of the test were trained on" in error


@pytest.fixture
def clean(recipes, machine, monkeypatch):
    """A clean version of the code, whatever the checkout's state."""
    clean = replace(machine, versions={**machine.versions, "revision": "0" * 40})
    for module in (results, recipe_run):
        monkeypatch.setattr(module, "environment", lambda: clean)


def test_a_second_evaluation_reads_existing_results_until_something_changes(clean, monkeypatch):
    run, episodes = Evaluator.run, []

    def counting(self, *args, **kwargs):
        counts = run(self, *args, **kwargs)
        episodes.append([len(of_line) for of_line in counts])
        return counts

    monkeypatch.setattr(Evaluator, "run", counting)
    words = ["evaluate", "tiny_matcher", "--fold", "0", "--quiet"]
    for _ in range(2):
        assert main(words) == 0
        assert episodes == [[12, 12]]
    assert main([*words, "--episodes", "3", "--shots", "1"]) == 0
    assert episodes == [[12, 12], [6]]


def test_a_folder_that_another_training_or_the_same_evaluation_uses_is_refused(
    clean, tmp_path, capsys, monkeypatch
):
    (tmp_path / "busy").mkdir()
    with folder_alone(tmp_path / "busy"):
        assert main(["train", "tiny_scl", "--quiet", "--out", "busy"]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "another process trains into busy now: wait for it, or choose a different folder" in error
    assert list((tmp_path / "busy").iterdir()) == []

    run, others = Evaluator.run, [["--fold", "0"], ["--fold", "1"]]

    def meanwhile(self, *arguments, **keywords):
        if others:
            words, others[:] = list(others), []
            assert [main(["evaluate", "tiny_matcher", *fold, "--quiet"]) for fold in words] == [1, 0]
        return run(self, *arguments, **keywords)

    monkeypatch.setattr(Evaluator, "run", meanwhile)
    assert main(["evaluate", "tiny_matcher", "--fold", "0", "--quiet"]) == 0
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(r"another process runs the same evaluation in results/.unfinished/\w+ now: wait", error)
    assert len(list((tmp_path / "results").glob("*.json"))) == 4
    assert not (tmp_path / "results/.unfinished").exists()


@pytest.mark.parametrize("saved", [1, 2])
def test_an_interruption_after_some_or_all_results_leaves_no_shards_for_ever(
    clean, saved, tmp_path, monkeypatch
):
    save, done = RunResult.save, []

    def interrupted(self, *arguments):
        save(self, *arguments)
        done.append(1)
        if len(done) == saved:
            raise KeyboardInterrupt

    words = ["evaluate", "tiny_matcher", "--fold", "0", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(RunResult, "save", interrupted)
        assert main(words) == 130
    assert list((tmp_path / "results/.unfinished").rglob("counts-*.npy"))
    assert main(words) == 0
    assert len(list((tmp_path / "results").glob("*.json"))) == 2
    assert not (tmp_path / "results/.unfinished").exists()


def test_an_evaluation_that_was_interrupted_goes_on_with_its_shards(clean, tmp_path, monkeypatch):
    counts, done = Evaluator.counts, []

    def interrupted(self, *arguments):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(1)
        return counts(self, *arguments)

    words = ["evaluate", "tiny_matcher", "--fold", "0", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "counts", interrupted)
        assert main(words) == 130
    kept = sorted((tmp_path / "results/.unfinished").rglob("counts-*.npy"))
    assert len(kept) == 5
    done.clear()
    monkeypatch.setattr(Evaluator, "counts", lambda *arguments: done.append(1) or counts(*arguments))
    assert main(words) == 0
    assert len(done) == 32 - 5
    assert not (tmp_path / "results/.unfinished").exists()
    assert main([*words, "--out", "again"]) == 0
    for path in (tmp_path / "results").glob("*.json"):
        found, again = load_counts(path), load_counts(tmp_path / "again" / path.name)
        assert all(np.array_equal(column, again.columns()[name]) for name, column in found.columns().items())


def test_the_held_out_class_is_neither_trained_on_nor_novel_and_selects(recipes, read, monkeypatch):
    """The selection's episodes, and the training's, by the classes that they draw."""
    drawn = {"train": set(), "select": set()}
    stream, run = CachedBatches.stream, Evaluator.run

    def streaming(self, start, stop):
        drawn["train"] |= set(self.sampler.classes)
        return stream(self, start, stop)

    def running(self, lines, *args, **kwargs):
        drawn["select"] |= {c for line in lines for c in line.episodes.classes}
        return run(self, lines, *args, **kwargs)

    monkeypatch.setattr(CachedBatches, "stream", streaming)
    monkeypatch.setattr(Evaluator, "run", running)
    assert main(["train", "tiny_pfenet", "--quiet"]) == 0
    assert drawn == {"train": {3, 4, 6}, "select": {5}}


def test_the_held_out_class_is_tested_on_images_that_training_left_out(
    recipes, read, tmp_path, capsys, monkeypatch
):
    trained, stream = set(), CachedBatches.stream

    def streaming(self, start, stop):
        trained.update(self.sampler.index.ids)
        return stream(self, start, stop)

    monkeypatch.setattr(CachedBatches, "stream", streaming)
    assert main(["train", "tiny_pfenet", "--quiet"]) == 0
    for classes in ("held-out", "novel"):
        assert main(["evaluate", PFENET, "--quiet", "--shots", "1", "--classes", classes]) == 0
    names = [f"tiny_pfenet-fold0-seed0-1shot-average{end}.json" for end in ("-held-out", "")]
    assert result_names() == names
    result, counts = load_with_counts(tmp_path / "results" / names[0])
    assert (list(result.classes), result.dataset) == ([5], "tiny, held-out base classes")
    assert result.class_split["base"] == [3, 4, 6]
    assert trained < set(read(0).train.ids)
    assert not trained & ({*counts.query} | {*counts.supports.flatten()})
    assert list(RunResult.load(tmp_path / "results" / names[1]).classes) == [1, 2]
    words = ["--quiet", "--out", "all", "--train.validate-every", "0", "--train.held-out"]
    assert main(["train", "tiny_pfenet", *words]) == 0
    capsys.readouterr()
    assert main(["evaluate", "all/best.safetensors", "--classes", "held-out"]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "all/best.safetensors has seen all base classes: --classes held-out needs" in error


def test_results_say_what_novel_pixels_were_in_training(recipes, tmp_path):
    words = ["--quiet", "--train.steps", "1", "--train.validate-every", "0"]
    assert main(["train", "tiny_pfenet", *words, "--train.novel-pixels", "ignored"]) == 0
    assert main(["evaluate", PFENET, "--quiet", "--shots", "1"]) == 0
    (name,) = result_names()
    result = RunResult.load(tmp_path / "results" / name)
    assert (result.protocol["novel_pixels"], result.protocol["drop_novel_training_images"]) == (
        "ignored",
        False,
    )


def test_a_collapsed_training_is_named_in_the_result_file(recipes, tmp_path, monkeypatch):
    sizes, losses = iter([4.0, 3.0, 0.03, 0.02]), PFENet.training_losses

    def shrinking(self, episodes):
        return replace(losses(self, episodes), watched={"prototype_length": torch.tensor(next(sizes))})

    monkeypatch.setattr(PFENet, "training_losses", shrinking)
    monkeypatch.setattr(train, "_LOG_EVERY", 1)
    assert main(["train", "tiny_pfenet", "--quiet", "--train.validate-every", "0"]) == 0
    assert main(["evaluate", PFENET, "--quiet", "--shots", "1"]) == 0
    (name,) = result_names()
    watched = RunResult.load(tmp_path / "results" / name).training["watched"]
    assert watched["collapsed"] == {"prototype_length": 3}


def test_fresh_views_and_a_trained_seed_of_its_own_go_the_same_way(recipes, tmp_path):
    words = ["--train.cached-views", "0", "--train.validate-every", "0", "--train.steps", "2"]
    assert main(["train", "tiny_pfenet", "--quiet", "--train.seed", "3", *words]) == 0
    path = tmp_path / "runs/tiny_pfenet-fold0-seed3/best.safetensors"
    assert read_checkpoint(path).training["config"]["cached_views"] == 0
    assert main(["evaluate", str(path), "--quiet", "--shots", "1"]) == 0
    (name,) = result_names()
    assert re.fullmatch(r"tiny_pfenet-fold0-seed3-1shot-average-[0-9a-f]{6}\.json", name)  # not the recipe's
    assert RunResult.load(tmp_path / "results" / name).train_seed == 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_checkpoint_with_its_own_backbone_is_evaluated_with_that_backbone(
    recipes, read, tmp_path, precision
):
    """Imported checkpoints carry the trunk; no config can make its weights again."""
    recipe = recipes["tiny_pfenet"]
    if precision == "bf16":
        recipe = replace(recipe, train=replace(recipe.train, precision="bf16-mixed"))
        RECIPES["tiny_pfenet"] = lambda: recipe
    method = build_method(recipe).eval()
    with torch.no_grad():
        for parameter in method.backbone.parameters():
            parameter.mul_(1.5).add_(0.05)
    save_checkpoint(tmp_path / "imported.safetensors", method, Checkpoint(config=recipe.method), whole=True)
    evaluation.evaluate(
        EvaluateOptions(what="imported.safetensors", recipe="tiny_pfenet", fold=0, shots=(1,), quiet=True)
    )
    found = load_counts("results/tiny_pfenet-fold0-seed0-1shot-average.json")
    precision = precision_of(recipe)  # bf16 where the machine does it well
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    data = read(0)
    trunk = method.backbone.to(dtype)
    store = FeatureStore(trunk, data.source, [EvalView(recipe.size)], folder=tmp_path / "s", dtype=dtype)
    sampler = EpisodeSampler(data.test, data.split, recipe.protocol, 1)
    evaluator = Evaluator(method, data.source, store, precision=precision, progress=False)
    (expected,) = evaluator.run([Line(episodes=sampler)])
    assert np.array_equal(found.fg_pred, expected.fg_pred)
    assert len(np.unique(found.fg_pred)) > 1 or int(found.fg_pred[0]) in (0, 33 * 33)


def test_the_same_seed_gives_the_same_initial_weights(recipes):
    recipe = recipes["tiny_scl"]
    first, again = build_method(recipe), build_method(recipe)
    other = build_method(replace(recipe, train=replace(recipe.train, seed=1)))
    weights = [m.trunk.reduce[0].weight for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.fixture
def released(recipes, tmp_path):
    """An imported SCL checkpoint: released CGM in its config, and nothing known of its training."""
    released = CrossGuided(iou="mean", path="support", divisor=5)
    recipe = recipes["tiny_scl"]
    recipe = replace(recipe, method=replace(recipe.method, fusion=released))
    path = tmp_path / "released.safetensors"
    save_checkpoint(path, build_method(recipe).eval(), Checkpoint(config=recipe.method), whole=True)
    return path


@pytest.mark.parametrize(
    "choice", [{}, {"shots": (3,), "fusion": ("cross-guided", "average")}, {"shots": (2,)}]
)
def test_a_checkpoint_is_evaluated_with_the_settings_of_its_own_fusion(released, choice, caplog):
    with caplog.at_level(logging.WARNING):
        found = evaluation.evaluate(
            EvaluateOptions(what=str(released), recipe="tiny_scl", fold=0, quiet=True, **choice)
        )
    fusions = {(r.shots, r.fusion): r.config["fusion"] for r in found}
    expected = {"type": "CrossGuided", "kind": "cross-guided", "iou": "mean", "path": "support", "divisor": 5}
    shots = choice.get("shots", (3,))[0]
    assert fusions.pop((shots, "cross-guided")) == expected
    assert all(kind == "average" for _, kind in fusions)
    assert "released.safetensors does not say which classes it was trained on" in caplog.text


@pytest.fixture
def canet(recipes, tmp_path, monkeypatch):
    """A checkpoint of SCL on CANet whose pairs are refined on their own."""
    own = recipes["tiny_scl"].method
    refinement = Refinement(stop_early=True)
    method = SCLCANetConfig(backbone=own.backbone, channels=own.channels, refinement=refinement)
    made = replace(recipes["tiny_scl"], name="tiny_canet", method=method)
    monkeypatch.setitem(RECIPES, made.name, lambda: made)
    path = tmp_path / "canet.safetensors"
    save_checkpoint(path, build_method(made).eval(), Checkpoint(config=method, recipe=made.name), whole=True)
    return str(path)


def test_image_scales_evaluate_a_checkpoint_on_images_at_their_own_size(canet, recipes, capsys):
    words = ["evaluate", canet, "--fold", "0", "--quiet", "--shots", "3", "--fusion", "cross-guided"]
    assert main(words) == 0
    assert main([*words, "--image-scales", "0.7", "1"]) == 0
    results = [RunResult.load(path) for path in Path("results").glob("*.json")]
    scaled, plain = sorted(results, key=lambda result: result.sizes)
    assert (plain.sizes, scaled.sizes) == ((recipes["tiny_scl"].size,), (0,))
    assert scaled.sizes_text == "the images' own"
    assert "image_scales" not in plain.config["method"]["refinement"]
    assert scaled.config["method"]["refinement"]["image_scales"] == [0.7, 1.0]
    assert scaled.protocol == plain.protocol
    assert main([*words, "--image-scales", "0.7", "--sizes", "33"]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "SCLCANet reads images at 0.7 times their own size: leave --sizes and --output-sizes out" in error
    assert main([*words, "--image-scales", "0.7", "--protocol", "paper-srpnet"]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "stretches images to a square and SCLCANet reads them at their own size: give a protocol" in error


def test_labelling_with_image_scales_warns_that_images_become_squares(canet, tmp_path, caplog):
    config = read_checkpoint(Path(canet)).config
    method = replace(config, refinement=Refinement(image_scales=(0.7, 1.0)))
    path = tmp_path / "scaled.safetensors"
    save_checkpoint(path, method.build().eval(), Checkpoint(config=method), whole=True)
    load_model(ModelOptions(model=str(canet), size=65))
    assert "own size" not in caplog.text
    load_model(ModelOptions(model=str(path), size=65))
    assert (
        "SCLCANet is evaluated at 0.7, 1 times an image's own size; here each image is fitted" in caplog.text
    )
    assert "a square of 65 pixels" in caplog.text


def test_training_on_cached_views_reads_no_image_at_the_scales_of_inference(
    canet, recipes, tmp_path, monkeypatch
):
    method = replace(read_checkpoint(Path(canet)).config, refinement=Refinement(image_scales=(0.7, 1.0)))
    made = replace(recipes["tiny_scl"], name="tiny_scaled", method=method)
    monkeypatch.setitem(RECIPES, made.name, lambda: made)
    monkeypatch.setattr(ScaledBackbone, "forward", None)
    words = ["train", made.name, "--quiet", "--train.validate-every", "0", "--train.held-out"]
    assert main(words) == 0


def test_image_scales_are_refused_by_name_where_a_method_feeds_nothing_back(released, capsys):
    words = ["evaluate", str(released), "--recipe", "tiny_scl", "--fold", "0", "--image-scales", "1.3"]
    assert main(words) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "--image-scales is for methods that feed their answer back, canet and scl-canet, not for" in error


def test_manifests_of_another_fold_are_refused_before_anything_is_computed(
    recipes, capsys, monkeypatch, caplog
):
    def run(*args, **kwargs):
        raise AssertionError("something was computed")

    assert main(["episodes", "tiny_matcher", "--fold", "1", "--out", "recorded"]) == 0
    manifests = [f"recorded/tiny-fold1-1shot-seed{s}.jsonl" for s in (0, 1)]
    words = ["evaluate", "tiny_matcher", "--quiet", "--manifest", *manifests]
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "_evaluate_lines", run)
        assert main([*words, "--fold", "0"]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "the manifests are of fold 1, the test is on fold 0: record fold 0" in error
    assert main([*words, "--fold", "1"]) == 0
    assert "was trained on" not in caplog.text, "nothing was trained, so nothing needs a warning"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fold", "0", "--protocol", "pefnet"], "pefnet"),
        ([], "give --fold"),
    ],
)
def test_protocol_and_fold_are_checked_before_the_weights_are_loaded(
    recipes, capsys, monkeypatch, words, message
):
    def load(*args, **kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("fewseg.recipes.resolve.build_method", load)
    assert main(["evaluate", "tiny_matcher", "--quiet", *words]) == 1
    assert message in capsys.readouterr().err


def test_a_checkpoint_whose_training_config_was_edited_is_refused(recipes, tmp_path):
    recipe = recipes["tiny_pfenet"]
    about = Checkpoint(config=recipe.method, recipe="tiny_pfenet", training={"config": 5})
    save_checkpoint(tmp_path / "edited.safetensors", build_method(recipe), about)
    with pytest.raises(ValueError, match="a header without a valid training config: it was edited"):
        evaluation.evaluate(EvaluateOptions(what="edited.safetensors", fold=0))


def result_names(folder="results"):
    return sorted(path.name for path in Path(folder).glob("*.json"))


def test_several_ways_the_supports_themselves_and_iteration_have_files_of_their_own(recipes):
    words = ["evaluate", "tiny_matcher", "--fold", "0", "--quiet", "--shots", "1"]
    for more in ([], ["--ways", "2"], ["--on", "support"], ["--fusion", "iterative"]):
        assert main([*words, *more]) == 0
    stem = "tiny_matcher-fold0-seed0"
    assert result_names() == [
        f"{stem}-1shot-iterative.json",
        f"{stem}-1shot-mean-on-support.json",
        f"{stem}-1shot-mean.json",
        f"{stem}-2way-1shot-mean.json",
    ]
    found = [RunResult.load(Path("results") / name) for name in result_names()]
    assert [(r.ways, r.on) for r in found] == [(1, "query"), (1, "support"), (1, "query"), (2, "query")]
    assert main(["table", "results", "--by-size"]) == 0


def test_a_recipe_without_training_runs_on_another_backbone_under_a_name_of_its_own(recipes, tmp_path):
    net = timm.create_model("convnext_atto", num_classes=0)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    weights = ["--backbone-weights", str(tmp_path / "net.pth")]
    words = ["evaluate", "tiny_matcher", "--fold", "0", "--quiet", "--shots", "1"]
    assert main([*words, "--backbone", "convnext_atto", *weights]) == 0
    assert result_names() == ["tiny_matcher_convnext_atto-fold0-seed0-1shot-mean.json"]
    assert main([*words, "--backbone", "konvnext"]) == 1


def test_a_published_protocol_takes_the_place_of_the_recipes_and_has_a_file_of_its_own(recipes, capsys):
    words = ["evaluate", "tiny_matcher", "--fold", "0", "--protocol", "paper-srpnet", "--episodes", "20"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "protocol paper-srpnet of pascal-5i (changed): 5 seeds x 20 episodes" in printed
    assert "class present from 1 px" in printed
    assert "100 episodes find differences from" in printed
    names = result_names()
    assert all("-paper-srpnet-" in name for name in names)
    assert {RunResult.load(Path("results") / name).protocol["min_area"] for name in names} == {1}
    assert main([*words[:5], "imagined"]) == 1
    assert "unknown protocol 'imagined'" in capsys.readouterr().err
