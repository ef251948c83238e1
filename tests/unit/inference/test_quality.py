import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fewseg.inference.model import Tiles, Whole
from fewseg.inference.quality import (
    Calibration,
    QualityEstimator,
    content_of,
    folds_of,
    halves_of,
    held_out,
)
from fewseg.types import EncodedShots
from small_segmenters import SIZE, iou, model, picture, segmenter, with_squares


def test_the_parts_are_what_they_say_computed_by_hand():
    """Reverse, agreement and margin written out with the method's own steps."""
    it = with_squares(shots=3)
    own = model()
    query = it.encode(picture(9)[0])
    found = it.segment(query).quality.classes["square"]
    shots = it.supports.images
    inside = content_of(query.windows)

    def predict(features, places):
        features_of = [shots[i].image.features for i in places]
        masks = torch.stack([shots[i].masks["square"][0] for i in places])[None]
        support = EncodedShots(features=type(features_of[0]).stack(features_of), masks=masks)
        state = own.state(support)
        return own.margins(features, state)[:, 0]

    margins = predict(query.features, (0, 1, 2))
    predicted = (margins > 0) & inside
    others = [(predict(query.features, places) > 0) & inside for places in ((1, 2), (0, 2), (0, 1))]
    assert found.agreement == pytest.approx(np.mean([iou(o, predicted) for o in others]))
    chance = margins.sigmoid()[predicted]
    assert found.margin == pytest.approx(float((2 * chance - 1).abs().mean()), abs=1e-5)
    mask = predicted.to(torch.uint8).masked_fill(~inside, 255)
    state = own.state(EncodedShots(features=query.features, masks=mask[None]))
    back = []
    for shot in shots:
        true = shot.masks["square"][0]
        marked = (own.margins(shot.image.features, state)[0, 0] > 0) & (true != 255)
        back.append(iou(marked, true == 1))
    assert found.reverse == pytest.approx(np.mean(back))
    factor = it.session().estimator.references("square").factor
    raw = min(1.0, math.sqrt(found.reverse * found.margin) * factor)
    assert found.score == pytest.approx((raw * raw * found.agreement) ** (1 / 3))


def test_the_known_error_of_the_supports_is_that_of_leaving_each_out():
    it = with_squares(shots=3)
    estimator = it.session().estimator
    rest = it.empty()
    for k in (1, 2):
        rest.add_class("square", *picture(k))
    image = picture(0)[0]
    (answer,) = rest.session().segment_all([rest.encode(image)], quality=False)
    (window,) = rest.encode(image).windows
    true = it.supports.images[0].masks["square"][0][: window.box.content[0], : window.box.content[1]]
    assert estimator.references("square").ious[0] == pytest.approx(iou(answer.margins[0] > 0, true == 1))


def test_scores_are_scaled_by_what_they_are_worth_on_the_supports():
    known = with_squares(shots=2).session().estimator.references("square")
    raw = []
    for k in (0, 1):
        rest = segmenter("matcher")
        rest.add_class("square", *picture(1 - k))
        raw.append(rest.segment(picture(k)[0]).quality.classes["square"].score)
    assert known.factor == pytest.approx((sum(known.ious) + 2) / (sum(raw) + 2), abs=1e-5)


def test_one_support_has_no_agreement_and_is_uncalibrated():
    quality = with_squares(shots=1).segment(picture(9)[0]).quality
    part = quality.classes["square"]
    assert part.agreement is None
    assert not quality.calibrated
    assert part.score == pytest.approx(math.sqrt(part.reverse * part.margin))
    assert with_squares(shots=2).segment(picture(9)[0]).quality.calibrated


@pytest.mark.parametrize("name", ["pfenet", "srpnet", "scl-canet"])
@pytest.mark.parametrize("views", [Whole(), Tiles()])
def test_every_number_is_between_0_and_1(name, views):
    it = with_squares(name, shots=2, views=views)
    it.add_class("dark", picture(4)[0], 1 - picture(4)[1])
    for hw in ((50, 70), (90, 65)):
        found = it.segment(picture(8, hw=hw)[0]).quality
        assert set(found.classes) == {"square", "dark"}
        for part in found.classes.values():
            for value in (part.reverse, part.agreement, part.margin, part.score, found.score):
                assert value is None or 0 <= value <= 1
        assert not found.calibrated  # dark has one support


def test_the_image_is_as_good_as_the_worst_class_that_occurs():
    it = with_squares(shots=3)
    it.add_class("dark", [picture(k)[0] for k in (4, 5)], [1 - picture(k)[1] for k in (4, 5)])
    found = it.segment(picture(9)[0])
    occur = [name for name in found.classes if found.mask(name).any()]
    assert found.quality.score == min(found.quality.classes[name].score for name in occur)


def test_nothing_found_has_no_reverse_check():
    it = with_squares(shots=3)
    estimator = QualityEstimator(it.model, it.supports)
    query = it.encode(picture(9)[0])
    nothing = torch.full((1, 1, 65, 65), -3.0)
    part = estimator.estimate(query, nothing).classes["square"]
    assert part.reverse is None
    assert part.margin == pytest.approx(1 - 2 / (1 + math.exp(3)), abs=1e-5)


def test_a_prediction_of_everything_is_no_evidence():
    it = with_squares(shots=1)
    query = it.encode(picture(9)[0])
    found = QualityEstimator(it.model, it.supports).estimate(query, torch.full((1, 1, 65, 65), 3.0))
    part = found.classes["square"]
    assert part.reverse == 0
    assert part.score == 0


def test_quality_runs_the_backbone_not_once(monkeypatch):
    it = with_squares(shots=3)
    encoded = it.encode(picture(9)[0])
    session = it.session()
    monkeypatch.setattr(it.model.method, "extract", lambda images: pytest.fail("a backbone pass"))
    assert session.segment(encoded).quality is not None
    assert session.segment(encoded, quality=False).quality is None


def test_many_supports_are_compared_five_times_at_most():
    it = with_squares(shots=7)
    known = it.session().estimator.references("square")
    assert len(known.others) == len(known.ious) == len(known.masks) == 5


PLACES = [(5, 30, 10, 30), (20, 45, 30, 60), (2, 20, 35, 65), (25, 48, 3, 25)]


def apart(name, shots):
    """A segmenter of squares in different places, so that no two pictures are near-duplicates."""
    it = segmenter(name)
    for k in range(shots):
        it.add_class("square", *picture(k, box=PLACES[k]))
    return it


def test_a_fitted_head_is_judged_by_its_probabilities_which_left_out_supports_calibrate():
    """Expected IoU of a logistic regression on the log-odds of heads fitted here without each support."""
    it = apart("fitted", 3)
    values, labels, ious = [], [], []
    for k in range(3):
        rest = it.empty()
        for i in {0, 1, 2} - {k}:
            rest.add_class("square", *picture(i, box=PLACES[i]))
        image = rest.encode(picture(k, box=PLACES[k])[0])
        h, w = image.windows[0].box.content
        values.append(rest.session().segment(image, quality=False).margins[0].flatten())
        labels.append(it.supports.images[k].masks["square"][0][:h, :w].flatten() == 1)
        ious.append(iou(values[-1] > 0, labels[-1]))
    x, y = torch.cat(values).double().numpy(), torch.cat(labels).double().numpy()

    def loss(line):
        logits = line[0] * x + line[1]
        pull = 5e-4 * ((line[0] - 1) ** 2 + line[1] ** 2)
        return float((np.logaddexp(0, logits) - y * logits).mean() + pull)

    slope, shift = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-12}).x
    known = it.session().estimator.calibration("square")
    assert (known.slope, known.shift) == pytest.approx((slope, shift), abs=2e-3)
    assert known.ious == pytest.approx(ious)
    found = it.segment(picture(9)[0])
    part = found.quality.classes["square"]
    chance = (slope * found.margins[0] + shift).sigmoid()
    inside = found.margins[0] > 0
    expected = float(chance[inside].sum() / (inside.sum() + chance[~inside].sum()))
    assert part.score == pytest.approx(expected, abs=1e-3)
    assert found.quality.calibrated
    assert part.reverse is part.agreement is None


def test_an_empty_mask_is_as_likely_right_as_the_class_is_likely_missing():
    it = apart("fitted", 2)
    it.add_image(picture(5, box=PLACES[2])[0], {})
    query = it.encode(picture(9)[0])
    margins = torch.full((1, 1, SIZE, SIZE), -30.0)
    found = it.session().estimator.estimate(query, margins).classes["square"]
    known = it.session().estimator.calibration("square")
    best = float(torch.tensor(-30.0 * known.slope + known.shift).sigmoid())
    assert found.score == pytest.approx((1 + 1) / (3 + 2) * (1 - 2 * best), abs=1e-4)


def expected_iou(chance):
    inside = chance > 0.5
    return float(chance[inside].sum() / (inside.sum() + chance[~inside].sum()))


def test_a_fitted_head_is_not_fitted_again_for_an_image(monkeypatch):
    it = apart("fitted", 3)
    session = it.session()
    session.segment(it.encode(picture(8)[0]))
    monkeypatch.setattr(it.model.method, "encode_support", lambda support: pytest.fail("a fit"))
    calls, segment = [], it.model.method.segment
    monkeypatch.setattr(it.model.method, "segment", lambda *given: calls.append(1) or segment(*given))
    assert session.segment(it.encode(picture(9)[0])).quality is not None
    assert len(calls) == 1


def test_a_fitted_head_of_one_support_is_uncalibrated():
    found = with_squares("fitted", shots=1).segment(picture(9)[0])
    assert not found.quality.calibrated
    assert found.quality.score == pytest.approx(expected_iou(found.margins[0].sigmoid()), abs=1e-4)


def test_folds_leave_each_image_out_once_and_keep_near_duplicates_together():
    it = apart("matcher", 4)
    image, mask = picture(0, box=PLACES[0])
    it.add_class("square", np.maximum(image, 1), mask)  # the first again, hardly changed
    folds = folds_of(it.supports)
    digests = [support.image.digest for support in it.supports.images]
    held = [[digests.index(support.image.digest) for support in fold.held] for fold in folds]
    assert sorted(held) == [[0, 4], [1], [2], [3]]
    for fold in folds:
        kept = {support.image.digest for support in fold.rest.images}
        assert kept == set(digests) - {support.image.digest for support in fold.held}


def test_many_supports_make_five_folds_with_some_of_each_class():
    it = segmenter()
    for k in range(12):
        box = (k, k + 20 + k, 2 * k + 1, 2 * k + 15)
        it.add_class("ab"[k % 2], *picture(k, box=box))
    folds = folds_of(it.supports)
    assert len(folds) == 5
    assert sorted(s.image.digest for fold in folds for s in fold.held) == sorted(
        s.image.digest for s in it.supports.images
    )
    for fold in folds:
        assert {name for name in "ab" for s in fold.held if s.shows(name)} == {"a", "b"}


def test_copies_of_one_image_have_no_folds_but_halves():
    it = segmenter()
    image, mask = picture(0)
    it.add_class("square", [image, np.maximum(image, 1)], [mask, mask])
    assert folds_of(it.supports) == []
    halves = halves_of(it.supports)
    assert len(halves) == 2
    for fold in halves:
        for rest, held in zip(fold.rest.images, fold.held, strict=True):
            a, b = rest.masks["square"], held.masks["square"]
            assert ((a == 255) | (b == 255)).all()  # no pixel is in both
            assert (a == 1).any()
            assert (b == 1).any()


def test_a_class_that_the_rest_does_not_show_wins_nowhere_on_a_left_out_image():
    it = apart("fitted", 2)
    it.add_class("dark", *picture(4, box=(1, 9, 1, 60)))
    answers = held_out(it.model, it.supports, folds_of(it.supports))
    (left_out,) = [own for own in answers if own.image.shows("dark")]
    assert left_out.known == ("square",)
    assert (left_out.margins[:, 1] < -100).all()
    assert it.session().estimator.calibration("dark") == Calibration(missing=(2 + 1) / (3 + 2))
