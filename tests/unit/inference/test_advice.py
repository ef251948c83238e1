"""What a run states at its end."""

from dataclasses import replace

import pytest
import torch

from fewseg.inference import Segmenter, Tiles, advice
from fewseg.inference.advice import RunSummary
from fewseg.inference.choose import Choice, ExpectedClass
from small_segmenters import model, picture, with_squares


@pytest.fixture
def it():
    return with_squares()


def summary(it, scores, colours, choice=None, side=70, calibrated=True, **changes):
    """Of images of one colour each with a quality; ``changes`` of their segmentations."""
    session = it.session()
    session.choice = choice
    found = RunSummary(session)
    for k, (score, colour) in enumerate(zip(scores, colours, strict=True)):
        image = it.encode(picture(20 + k, colour=colour)[0])
        made = replace(session.segment(image), **{"margins": torch.ones(1, 4, 4), **changes})
        parts = {"square": replace(made.quality.classes["square"], score=score, calibrated=calibrated)}
        made = replace(made, quality=replace(made.quality, score=score, classes=parts))
        found.add(f"{k}.png", replace(image, size=(side, side)), made)
    return found


RED, BLUE, GREEN = (250, 30, 30), (30, 30, 250), (30, 250, 30)


def test_good_runs_need_nothing(it):
    assert summary(it, [0.8, 0.6], [RED, RED]).lines == ("square: mean quality 0.70 on 2 images",)


def test_the_least_certain_and_most_different_are_proposed_each_kind_once(it):
    scores, colours = [0.1, 0.1, 0.1, 0.1, 0.9], [BLUE, BLUE, GREEN, RED, GREEN]
    found = summary(it, scores, colours)
    assert {own[0] for own in found.next()[:2]} in ({"0", "2"}, {"1", "2"})
    assert len(found.next()) == 3
    assert found.lines[1:] == (
        "low: square; look at the masks before using them",
        f"annotate next, the most different of the least certain: {', '.join(found.next())}",
        "or try --model auto, which chooses the method by your examples",
    )


def choice(iou, calibrated=True, inputs=("65 px",)):
    classes = {"square": ExpectedClass(iou=iou, spread=None)}
    return Choice(
        name="matcher",
        model=None,
        classes=classes,
        candidates={},
        calibrated=calibrated,
        notes=(),
        held=(),
        inputs=dict.fromkeys(inputs, 0.5),
    )


@pytest.mark.parametrize(("side", "option"), [(70, "--size 97"), (200, "--tiles 65")])
def test_a_low_expected_iou_alone_is_enough_and_large_images_are_cut(it, side, option):
    found = summary(it, [0.9], [RED], choice(0.3), side)
    assert found.lines[0] == "square: expected IoU 0.30, mean quality 0.90 on 1 image"
    assert found.lines[-1].startswith(f"or try {option}")
    assert len(summary(it, [0.9], [RED], choice(0.6)).lines) == 1


TRIED = ("65 px", "97 px")


@pytest.mark.parametrize(
    ("side", "inputs", "option"),
    [
        (70, TRIED, None),
        (200, TRIED, "--tiles 65"),
        (200, (*TRIED, "tiles of 100 px"), "--tiles 65"),
        (200, (*TRIED, "tiles of 65 px"), None),
        (200, ("65 px", "tiles of 65 px"), "--size 97"),
    ],
)
def test_an_input_that_the_choice_has_tried_is_not_proposed(it, side, inputs, option):
    last = summary(it, [0.9], [RED], choice(0.3, inputs=inputs), side).lines[-1]
    assert last.startswith(f"or try {option}" if option else "annotate next")


@pytest.mark.parametrize("side", [70, 200])
def test_no_other_input_is_proposed_where_images_are_cut_into_tiles(side):
    it = Segmenter(model(views=Tiles()))
    it.add_class("square", *picture(0))
    assert summary(it, [0.9], [RED], choice(0.3), side).lines[-1].startswith("annotate next")


def test_what_is_not_calibrated_is_marked(it):
    found = summary(it, [0.8], [RED], choice(0.87, calibrated=False), calibrated=False)
    assert found.lines == (
        "square: expected IoU 0.87 (uncalibrated), mean quality 0.80 (uncalibrated) on 1 image",
    )


def test_a_class_that_is_found_nowhere_is_named(it):
    nowhere = -torch.ones(1, 4, 4)
    assert summary(it, [0.8, 0.9], [RED, BLUE], margins=nowhere).lines == (
        "square: found on none of 2 images",
    )
    found = summary(it, [0.8, 0.9], [RED, BLUE], choice(0.8), margins=nowhere)
    assert found.lines == ("square: expected IoU 0.80, found on none of 2 images",)
    assert summary(it, [], [], choice(0.8)).lines == ("square: expected IoU 0.80",)


@pytest.mark.parametrize(("threshold", "found"), [(0.7, True), (0.75, False)])
def test_a_class_is_found_where_its_probability_is_above_the_threshold(it, threshold, found):
    """A log-odds of 1 is a probability of 0.73."""
    (line,) = summary(it, [0.8], [RED], threshold=threshold).lines
    assert line == f"square: {'mean quality 0.80 on 1 image' if found else 'found on none of 1 image'}"


def test_a_class_that_no_label_is_given_for_is_not_found(it):
    made = {"negatives": frozenset({"square"}), "floors": {"square": 0.8}}
    assert summary(it, [0.8], [RED], **made).lines == ("square: found on none of 1 image",)


def test_only_the_least_certain_are_kept(it, monkeypatch):
    scores = [0.9, 0.2, 0.8, 0.1, 0.7, 0.3, 0.6]
    wanted = summary(it, scores, [RED, BLUE, GREEN, RED, GREEN, BLUE, RED])
    monkeypatch.setattr(advice, "_LOOKS", 3)
    found = summary(it, scores, [RED, BLUE, GREEN, RED, GREEN, BLUE, RED])
    assert set(found.next()) == {"1.png", "3.png", "5.png"}
    assert len(found.findings.judged) <= 6
    assert found.lines[0] == wanted.lines[0]
    assert found.findings.others == 7 - len(found.findings.judged)


def test_parts_of_a_run_add_up(it):
    parts = [summary(it, [0.2, 0.8], [RED, BLUE], side=200, calibrated=False), summary(it, [], [])]
    (one, none), both = parts, summary(it, [0.3], [GREEN])
    none.findings.others = 4
    for part in parts:
        both.findings.add(part.findings)
    assert both.lines[0] == "square: mean quality 0.43 (uncalibrated) on 3 images"
    assert both.findings.sides == {70: 1, 200: 2}
    assert both.findings.others == 4
    assert both.lines[2].endswith("0.png")
    assert one.lines[0] == "square: mean quality 0.50 (uncalibrated) on 2 images"


@pytest.mark.parametrize(
    ("score", "word"),
    [(0.75, "good"), (0.746, "good"), (0.744, "check"), (0.496, "check"), (0.494, "bad")],
)
def test_a_quality_is_rated_by_the_digits_that_are_shown(score, word):
    assert advice.verdict(score) == word
