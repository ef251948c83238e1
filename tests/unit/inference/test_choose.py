"""The method that suits the examples, chosen on tiny networks."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fewseg.annotations.values import AnnotatedImage
from fewseg.cli import main
from fewseg.inference import ModelOptions, Segmenter, choose, input_size, load_model
from fewseg.inference import model as inference_model
from fewseg.inference.choose import Choice, ExpectedClass, candidate_configs, expected, notes_of, sampled
from fewseg.inference.input_size import with_fitting_input
from fewseg.inference.model import Model, Whole
from fewseg.inference.options import ExportOptions, LabelOptions
from fewseg.inference.quality import HeldOut
from fewseg.inference.supports import SupportImage, options_of_supports, whole_mask
from fewseg.methods.fitted import FittedConfig
from fewseg.methods.mean import MeanConfig, on_backbone
from fewseg.serve import ServeOptions
from small_segmenters import SIZE, iou, model, picture, tiny

PLACES = [(5, 30, 10, 30), (20, 45, 30, 60), (2, 20, 35, 65), (25, 48, 3, 25)]


@pytest.fixture(autouse=True)
def small_fits(monkeypatch):
    """The candidates, fitted to a few cells in a few steps."""

    def small(backbone):
        return {
            kind: [
                (name, replace(own, cells=300, steps=8) if isinstance(own, FittedConfig) else own)
                for name, own in configs
            ]
            for kind, configs in candidate_configs(backbone).items()
        }

    monkeypatch.setattr(choose, "candidate_configs", small)


def chooser():
    """A segmenter without supports, whose supports choose."""
    fitted = model("fitted")
    return Segmenter(Model(fitted.method, fitted.config, SIZE, Whole(), "auto", chooses=True))


def with_supports(shots, **keywords):
    it = chooser()
    for k in range(shots):
        it.add_class("square", *picture(k, box=PLACES[k], **keywords))
    return it


def test_the_best_of_all_candidates_is_chosen_by_what_it_makes_of_left_out_images(monkeypatch):
    it = with_supports(3)
    passes = []
    run = it.model.method.backbone.forward
    monkeypatch.setattr(it.model.method.backbone, "forward", lambda images: passes.append(1) or run(images))
    session = it.session()
    choice = session.choice
    assert passes == []  # features are those of the supports
    assert list(choice.candidates.values()) == sorted(choice.candidates.values(), reverse=True)
    scores = choice.candidates
    half = {name: score + 0.01 * name.endswith("half refined") for name, score in scores.items()}
    assert choice.name == max(half, key=half.get) == session.model.name.removeprefix("auto: ")
    assert choice.score == scores[choice.name]
    assert {name.split()[0].strip(",") for name in choice.candidates} == {
        "matcher", "linear", "perceptron", "mean"
    }  # fmt: skip
    # one of each kind, a second decay of the best head and two means, each in three degrees of refining
    assert len(choice.candidates) == 18
    assert choice.calibrated
    assert 0 <= choice.classes["square"].iou <= 1
    kinds = choose.candidate_configs(it.model.method.backbone.config)
    name, config = choice.candidate
    known = [own for kind in kinds.values() for other, own in kind if other == name]
    assert known == [config] or set(config.members) <= {own for kind in kinds.values() for _, own in kind}
    assert session.model.refine == choose.SHARES[choice.name.removeprefix(name)]


def test_a_candidates_score_is_the_iou_over_all_left_out_images(monkeypatch):
    """Written out with a segmenter of that candidate alone, at the threshold 0.5."""
    monkeypatch.setattr(choose, "_THRESHOLDS", (0.5,))
    it = with_supports(3)
    choice = it.session().choice
    backbone = it.model.method.backbone
    config = candidate_configs(backbone.config)["matcher"][0][1]
    alone = Segmenter(Model(on_backbone(config, backbone), config, SIZE))
    hit, area = 0, 0
    for k in range(3):
        rest = alone.empty()
        for i in {0, 1, 2} - {k}:
            rest.add_class("square", *picture(i, box=PLACES[i]))
        image = rest.encode(picture(k, box=PLACES[k])[0])
        found = rest.session().segment(image, quality=False).mask("square")
        true = picture(k, box=PLACES[k])[1] == 1
        hit, area = hit + int((found & true).sum()), area + int((found | true).sum())
    assert 0 < hit < area
    assert choice.candidates["matcher"] == pytest.approx(hit / area)


def answers(*chances):
    """Left-out images of 4 x 4 pixels whose left half is the class, with chances inside and outside."""
    image = with_supports(1).supports.images[0].image
    found = []
    for inside, outside in chances:
        mask = torch.zeros(1, 4, 4, dtype=torch.uint8)
        mask[..., :2] = 1
        margins = torch.where(mask == 1, inside, outside).float().logit()[None]
        support = SupportImage(image=image, masks={"a": mask})
        found.append(HeldOut(image=support, margins=margins, known=("a",)))
    return found


def test_a_threshold_is_chosen_where_all_other_images_agree_on_it():
    high = expected(answers((0.9, 0.65), (0.95, 0.6), (0.9, 0.65)), ("a",))["a"]
    assert high == ExpectedClass(iou=1.0, spread=0.0, threshold=0.7)
    same = expected(answers((0.9, 0.1), (0.8, 0.2), (0.9, 0.2)), ("a",))["a"]
    assert same == ExpectedClass(iou=1.0, spread=0.0, threshold=0.5)


def test_a_class_must_lead_before_the_background_and_not_only_before_other_classes():
    held = [
        replace(own, margins=torch.cat([own.margins, own.margins - 9], dim=1), known=("a", "b"))
        for own in answers((0.9, 0.1), (0.8, 0.2))
    ]
    assert expected(held, ("a", "b"))["a"] == ExpectedClass(iou=1.0, spread=0.0, threshold=0.5)


def test_a_threshold_that_helps_one_image_alone_is_not_chosen():
    """It is judged on each image by what the others would choose."""
    own = expected(answers((0.9, 0.1), (0.45, 0.1), (0.9, 0.1)), ("a",))["a"]
    assert own.threshold == 0.5  # though 0.4 is right on all three
    assert own.iou == pytest.approx(2 / 3)
    assert own.spread == pytest.approx(np.std([1, 0, 1], ddof=1))
    alone = expected(answers((0.45, 0.1), (0.9, 0.45)), ("a",))["a"]
    assert alone.threshold == 0.5
    assert alone.iou == pytest.approx(8 / 16)
    assert alone.spread == pytest.approx(np.std([0, 1], ddof=1))


def test_a_chosen_threshold_stands_for_a_half_from_then_on():
    it = with_supports(3)
    session = it.session()
    image = it.encode(picture(9)[0])
    before = session.segment(image, quality=False).margins
    choice = session.choice
    session.choice = Choice(
        **{
            **{name: getattr(choice, name) for name in Choice.__dataclass_fields__},
            "classes": {"square": ExpectedClass(iou=1.0, spread=0.0, threshold=0.8)},
        }
    )
    first = choice.classes["square"].threshold
    after = session.segment(image, quality=False).margins
    moved = np.log(0.8 / 0.2) - np.log(first / (1 - first))
    assert torch.allclose(before - after, torch.full_like(before, moved), atol=1e-4)


def test_the_chosen_one_segments_and_its_quality_comes_from_the_same_left_out_images(monkeypatch):
    it = with_supports(3)
    session = it.session()
    image, mask = picture(9)
    encoded = it.encode(image)
    monkeypatch.setattr(type(session.model.method), "encode_support", lambda *_: pytest.fail("a fit"))
    found = session.segment(encoded)
    assert iou(found.mask("square"), mask == 1) > 0.8
    assert found.quality.calibrated
    assert session.estimator.known_ious("square") == session.estimator.calibration("square").ious
    assert len(session.estimator.known_ious("square")) == 3


def test_one_example_is_tested_half_by_half_and_uncalibrated():
    it = with_supports(1)
    choice = it.session().choice
    assert not choice.calibrated
    assert choice.classes["square"].iou is not None
    assert "uncalibrated" in choice.lines[1]
    assert any("annotate a second" in note for note in choice.notes)
    assert not it.segment(picture(9)[0]).quality.calibrated


def test_a_class_on_one_example_beside_others_is_named_and_does_not_count():
    it = with_supports(3)
    it.add_class("dark", *picture(7, box=(1, 9, 1, 60)))
    choice = it.session().choice
    assert choice.calibrated
    assert choice.classes["dark"].iou is None
    assert choice.candidates[choice.name] == pytest.approx(choice.classes["square"].iou)
    assert any(note.startswith("dark: shown on one example only") for note in choice.notes)
    assert not any(line.startswith("dark: expected") for line in choice.lines)


def test_examples_that_contradict_each_other_are_named_and_it_goes_on():
    it = chooser()
    for k, place in enumerate([*PLACES[:3], PLACES[0]]):
        image, mask = picture(k, box=place)
        it.add_class("thing", image, 1 - mask if k % 2 else mask)
    choice = it.session().choice
    (note,) = choice.notes
    assert note.startswith("thing: the examples do not predict each other (marking every pixel would have")
    assert it.segment(picture(9)[0]).labels.shape == (50, 70)


def test_few_marked_pixels_are_named():
    it = chooser()
    for k in range(3):
        it.add_class("dot", *picture(k, box=(10 + 8 * k, 16 + 8 * k, 20 * k, 20 * k + 6)))
    assert any("pixels are marked" in note for note in it.session().choice.notes)
    assert not any("pixels are marked" in note for note in with_supports(3).session().choice.notes)


def test_examples_without_background_end_in_the_error_of_a_session():
    it = chooser()
    image, mask = picture(0)
    it.add_class("all", image, np.ones_like(mask))
    with pytest.raises(ValueError, match="no pixel of the examples is known to be background"):
        it.session()


def test_one_example_of_one_class_beside_one_without_background_warns_of_nothing():
    it = with_supports(2)
    image, mask = picture(7)
    it.add_class("square", image, np.ones_like(mask))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert it.session().choice.calibrated


def test_classes_with_low_scores_share_one_note():
    supports = with_supports(2).supports
    scores = {"fish": 0.1, "star": 0.49, "bell": 0.5, "comb": 0.09, "new": None}
    classes = {name: ExpectedClass(iou=iou, spread=None) for name, iou in scores.items()}
    lines = [line for line in notes_of(supports, 2, classes, True) if "pixels are marked" not in line]
    assert [line.split(":")[0] for line in lines] == ["fish, star", "comb", "new"]
    assert "annotate more images, best those that are proposed" in lines[0]
    assert not any("--" in line for line in lines)  # options come last, without those that were tried


def test_many_examples_are_sampled_with_some_of_each_class():
    classes = ["a"] * 60 + ["b"] * 3 + [""] * 40
    kept = sampled(list(enumerate(classes)), ("a", "b"), lambda item, name: item[1] == name, 30)
    assert [sum(own == name for _, own in kept) for name in ("a", "b", "")] == [10, 3, 10]
    assert kept == sorted(kept)
    assert kept[0] == (0, "a")
    few = list(enumerate("ab"))
    assert sampled(few, ("a", "b"), lambda item, name: item[1] == name, 2) == few
    many = list(enumerate("aabbccdd"))
    assert sampled(many, "abcd", lambda item, name: item[1] == name, 3) == many[::2]


def test_a_choice_is_json_and_the_same_each_time():
    first, second = (with_supports(3).session().choice for _ in range(2))
    assert first.facts() == second.facts() == json.loads(json.dumps(first.facts()))
    assert first.facts()["classes"]["square"].keys() == {"iou", "spread", "threshold"}


def test_candidates_share_one_backbone_and_read_its_levels():
    it = chooser()
    backbone = it.model.method.backbone
    for kind in candidate_configs(backbone.config).values():
        for _, config in kind:
            assert on_backbone(config, backbone).backbone is backbone


@pytest.fixture
def tiny_recipes(monkeypatch):
    """Recipes on a tiny network of the same levels; gives the names of those that are used."""
    step, used = inference_model.resolve, []

    def resolve(what, **keywords):
        used.append(what)
        found = step(what)
        config = tiny(found.about.config)
        recipe = replace(found.recipe, method=config, size=SIZE)
        return replace(found, recipe=recipe, about=replace(found.about, config=config))

    monkeypatch.setattr(inference_model, "resolve", resolve)
    return used


def test_auto_takes_the_backbone_of_a_recipe_of_a_fitted_head(tiny_recipes):
    assert load_model(ModelOptions(model="auto")).chooses
    assert load_model(ModelOptions(model="auto:voc5i_mini_fitted")).config.levels == ("layer2", "layer3")
    assert not load_model(ModelOptions(model="fitted_resnet50")).chooses
    assert tiny_recipes == ["fitted_resnet50", "voc5i_mini_fitted", "fitted_resnet50"]
    with pytest.raises(ValueError, match="auto needs a recipe of a fitted head"):
        load_model(ModelOptions(model="auto:pascal_matcher_resnet50"))


def test_label_names_the_choice_and_what_to_expect_everywhere(tmp_path, tiny_recipes, caplog):
    caplog.set_level("INFO")
    for k in range(3):
        image, mask = picture(k, box=PLACES[k])
        for folder, pixels in (("sup/images", image), ("sup/masks", mask), ("photos", image[::-1])):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{k}.png")
    words = ["label", "--model", "auto", "--support", tmp_path / "sup", "--images", tmp_path / "photos"]
    words += ["--out", tmp_path / "out", "--class-name", "square", "--quiet"]
    assert main([str(word) for word in words]) == 0
    run = json.loads((tmp_path / "out/run.json").read_text())
    own = run["choice"]["classes"]["square"]
    line = f"square: expected IoU {own['iou']:.2f} ± {own['spread']:.2f}, threshold {own['threshold']:g}"
    assert run["model_name"] == f"auto: {run['choice']['name']}"
    messages = [record.getMessage() for record in caplog.records]
    sheet = (tmp_path / "out/contact-sheet.html").read_text()
    for text in (f"chosen by your examples: {run['choice']['name']}, at {run['choice']['input']}", line):
        assert text in messages
        assert f"<li>{text}</li>" in sheet
    assert main([str(word) for word in words]) == 0  # goes on in the same folder


def refining(refine, name="matcher"):
    plain = model(name)
    return Segmenter(Model(plain.method, plain.config, SIZE, Whole(), refine=refine))


def test_refined_edges_follow_those_of_the_image():
    found = []
    for refine in (False, True):
        it = refining(refine)
        for k in range(3):
            it.add_class("square", *picture(k, box=PLACES[k]))
        images = [picture(9 + k, box=PLACES[k]) for k in range(3)]
        found.append(np.mean([iou(it.segment(image).mask("square"), mask == 1) for image, mask in images]))
    assert found[1] > found[0] + 0.01


def test_a_model_that_refines_keeps_the_image_and_takes_no_other_models_features(tmp_path):
    image, mask = picture(0)
    sharp, plain = refining(True), refining(False)
    assert sharp.encode(image).features["guide"].dtype == torch.uint8
    with pytest.raises(ValueError, match="encode it with this one"):
        sharp.add_class("square", plain.encode(image), mask)
    assert plain.model.digest == model().digest
    sharp.add_class("square", image, mask)
    sharp.save_supports(tmp_path / "supports.safetensors")
    again = refining(True)
    again.load_supports(tmp_path / "supports.safetensors")
    query = picture(9)[0]
    assert torch.equal(again.segment(query).margins, sharp.segment(query).margins)


def test_refining_is_chosen_by_the_examples_unless_it_is_given(tiny_recipes):
    names = {}
    for refine in ("auto", "off", "half", "full"):
        it = Segmenter(load_model(ModelOptions(model="auto", refine=refine)))
        for k in range(2):
            it.add_class("square", *picture(k, box=PLACES[k]))
        session = it.session()
        names[refine] = [name.partition(", edges ")[2] for name in session.choice.candidates]
        known = {"": 0, "half refined": 0.5, "refined": 1}
        assert session.model.refine == known[session.choice.name.partition(", edges ")[2]]
    assert set(names["full"]) == {"refined"}
    assert set(names["half"]) == {"half refined"}
    assert set(names["off"]) == {""}
    assert all(names["auto"].count(own) == len(names["auto"]) / 3 for own in ("", "half refined", "refined"))


def test_half_refined_edges_are_the_mean_of_the_log_odds():
    sharp = refining(True)
    image = sharp.encode(picture(0)[0])
    margins = torch.randn(1, 2, SIZE, SIZE)
    found = inference_model.refined(margins, image.features)
    half = inference_model.refined(margins, image.features, 0.5)
    torch.testing.assert_close(half, (margins + found) / 2)


def test_a_mean_of_methods_has_the_mean_of_their_log_odds_and_fits_each_once():
    it = with_supports(2)
    backbone = it.model.method.backbone
    configs = [own[0][1] for own in choose.candidate_configs(backbone.config).values()]
    members = [on_backbone(config, backbone) for config in configs]
    method = on_backbone(MeanConfig(backbone=backbone.config, members=tuple(configs)), backbone)
    assert {id(own.backbone) for own in (method, *members)} == {id(backbone)}
    support, query = it.supports.encoded(True), it.encode(picture(9)[0]).features
    found = method.segment(query, method.encode_support(support))
    logits = [own.segment(query, own.encode_support(support)) for own in members]
    mean = sum(own[:, 1:] - own[:, :1] for own in logits) / len(logits)
    torch.testing.assert_close(found[:, 1:], mean)
    assert not found[:, 0].any()
    with pytest.raises(ValueError, match="nothing to train"):
        method.training_losses(None)
    assert load_model(ModelOptions(model="fitted_resnet50")).refine == 0


def test_auto_is_the_default_of_labelling_and_the_quick_matcher_of_the_page_and_of_exports(tmp_path):
    assert LabelOptions(support=tmp_path, images=(), out=tmp_path).model.model == "auto"
    assert ModelOptions().model == "auto"
    assert ExportOptions(support=tmp_path, out=tmp_path).model.model == "pascal_matcher_resnet50"
    assert ServeOptions().model.model == "pascal_matcher_resnet50"


def test_a_segmenter_without_a_name_chooses(tiny_recipes):
    assert Segmenter.from_checkpoint().model.chooses
    assert tiny_recipes == ["fitted_resnet50"]


def test_candidates_are_tested_at_the_size_of_the_image_itself():
    """A line of one pixel in an image twice the network's size, where no mask of that size shows it all."""
    it = chooser()
    for k in range(2):
        image, mask = picture(k, hw=(2 * SIZE, 2 * SIZE))
        mask = np.zeros_like(mask)
        mask[:, 20 + 7 * k] = 1
        it.add_class("line", image, mask)
    support = it.supports.images[0]
    assert support.masks["line"].shape == (1, SIZE, SIZE)
    np.testing.assert_array_equal(support.whole_truth("line").numpy(), picture_line(0))
    held = HeldOut(image=support, margins=torch.ones(1, 1, SIZE, SIZE), known=("line",))
    assert expected([held], ("line",))["line"].iou == pytest.approx(1 / (2 * SIZE))
    assert support.whole_truth("other").sum() == 0


def picture_line(k):
    mask = np.zeros((2 * SIZE, 2 * SIZE), np.uint8)
    mask[:, 20 + 7 * k] = 1
    return mask


def test_masks_of_large_images_are_tested_at_1024_pixels():
    mask = torch.zeros(500, 2048, dtype=torch.uint8)
    mask[:, 1024:] = 1
    assert whole_mask(mask).shape == (250, 1024)
    assert torch.equal(whole_mask(mask), mask[::2, ::2])


def annotated(folder, hw, count=3):
    """Bright squares of 5 pixels on dark, as files."""
    folder.mkdir()
    found = []
    for k in range(count):
        image, mask = np.full((*hw, 3), 30 + k, np.uint8), np.zeros(hw, np.uint8)
        for top in range(5, hw[0] - 9, 20):
            image[top : top + 5, 20 + 9 * k : 25 + 9 * k], mask[top : top + 5, 20 + 9 * k : 25 + 9 * k] = (
                250,
                1,
            )
        Image.fromarray(image).save(folder / f"{k}.png")
        found.append(AnnotatedImage(image=folder / f"{k}.png", size=hw, masks={"dot": mask}))
    return found


def test_a_larger_input_or_tiles_are_taken_where_the_examples_gain_by_them(tmp_path, caplog):
    caplog.set_level("INFO")
    images = annotated(tmp_path / "large", (200, 200))
    it = chooser()
    it.add_annotated(images)
    usual = it.session().choice
    found = with_fitting_input(it, images)
    choice = found.session().choice
    assert choice.input in ("97 px", "tiles of 100 px")
    assert choice.score >= usual.score + 0.02
    text = caplog.messages[-1]
    assert f"{SIZE} px {usual.score:.2f}" in text
    assert f"{choice.input} {choice.score:.2f}" in text
    assert list(choice.inputs) == [f"{SIZE} px", "97 px", "tiles of 100 px"]
    assert choice.inputs[usual.input] == usual.score
    assert choice.inputs[choice.input] == choice.score == max(choice.inputs.values())
    assert choice.facts()["inputs"].keys() == choice.inputs.keys()
    assert {name.partition(", edges")[0] for name in choice.candidates} == {usual.candidate[0]}
    assert found.model.method.backbone is it.model.method.backbone
    found.save_supports(tmp_path / "s.safetensors")
    options = options_of_supports(tmp_path / "s.safetensors", ModelOptions())
    assert f"tiles of {options.tiles} px" == choice.input or f"{options.size} px" == choice.input
    given = ModelOptions(size=33)
    assert options_of_supports(tmp_path / "s.safetensors", given).size == 33


def test_the_usual_input_stays_where_another_gains_nothing_or_takes_too_long(tmp_path, monkeypatch):
    images = annotated(tmp_path / "large", (200, 200))
    it = chooser()
    it.add_annotated(images)
    monkeypatch.setattr(input_size, "_WORTH", 1.0)
    assert with_fitting_input(it, images) is it
    assert list(it.session().choice.inputs) == [f"{SIZE} px", "97 px", "tiles of 100 px"]
    it = chooser()
    it.add_annotated(images)
    monkeypatch.setattr(input_size, "_MOST", 1.0)
    monkeypatch.setattr(Model, "encode", lambda *_: pytest.fail("a pass"))
    assert with_fitting_input(it, images) is it
    assert list(it.session().choice.inputs) == [f"{SIZE} px"]
