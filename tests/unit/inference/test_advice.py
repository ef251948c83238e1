"""What a run states at its end."""

from dataclasses import replace

import pytest
import torch

from fewseg.inference import advice
from fewseg.inference.advice import RunSummary
from fewseg.inference.choose import Choice, ExpectedClass
from small_segmenters import picture, with_squares


@pytest.fixture
def it():
    return with_squares()


def summary(it, scores, colours, choice=None, side=70):
    """Of images of one colour each with a quality."""
    session = it.session()
    session.choice = choice
    found = RunSummary(session)
    for k, (score, colour) in enumerate(zip(scores, colours, strict=True)):
        image = it.encode(picture(20 + k, colour=colour)[0])
        made = replace(session.segment(image), margins=torch.ones(1, 4, 4))
        parts = {"square": replace(made.quality.classes["square"], score=score)}
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


def choice(iou):
    classes = {"square": ExpectedClass(iou=iou, spread=None)}
    return Choice(
        name="matcher", model=None, classes=classes, candidates={}, calibrated=True, notes=(), held=()
    )


@pytest.mark.parametrize(("side", "option"), [(70, "--size 97"), (200, "--tiles 65")])
def test_a_low_expected_iou_alone_is_enough_and_large_images_are_cut(it, side, option):
    found = summary(it, [0.9], [RED], choice(0.3), side)
    assert found.lines[0] == "square: expected IoU 0.30, mean quality 0.90 on 1 images"
    assert found.lines[-1].startswith(f"or try {option}")
    assert len(summary(it, [0.9], [RED], choice(0.6)).lines) == 1


def test_only_the_least_certain_are_kept(it, monkeypatch):
    scores = [0.9, 0.2, 0.8, 0.1, 0.7, 0.3, 0.6]
    wanted = summary(it, scores, [RED, BLUE, GREEN, RED, GREEN, BLUE, RED])
    monkeypatch.setattr(advice, "_LOOKS", 3)
    found = summary(it, scores, [RED, BLUE, GREEN, RED, GREEN, BLUE, RED])
    assert set(found.next()) == {"1.png", "3.png", "5.png"}
    assert len(found._judged) <= 6
    assert found.lines[0] == wanted.lines[0]
