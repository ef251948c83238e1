"""Example pictures: which episodes, and what the colours of a pixel mean."""

from types import SimpleNamespace

import numpy as np
import torch

from fewseg.data.episodes import EpisodeSampler
from fewseg.data.index import build_index
from fewseg.data.protocols import Protocol
from fewseg.data.synthetic import SyntheticSource, synthetic_5i
from fewseg.data.transforms import binary_mask
from fewseg.demo.report import Predictor, choose_episodes, example_panels
from fewseg.methods.fusion import MeanVector
from fewseg.reports.marked_pictures import MISSED, WRONG, judged, spotlight


def near(pixel: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() < 90)


def test_a_spotlight_keeps_the_marked_pixels_and_pales_the_others():
    picture = np.zeros((9, 9, 3), dtype=np.uint8)
    picture[..., 0] = 200
    mask = np.zeros((9, 9), dtype=np.uint8)
    mask[3:6, 3:6] = 1
    mask[8, 8] = 255
    shown = spotlight(picture, mask)
    assert (shown[4, 4] == (200, 0, 0)).all()
    assert shown[0, 0].min() == shown[0, 0].max() > 150
    assert shown[8, 8].min() == shown[8, 8].max() > 150, "an ignored pixel is not marked"
    assert (shown[2, 4] == 30).all(), "the outline"
    assert (shown[2, 2] > 150).all(), "corners do not touch"
    assert (picture[..., 1] == 0).all(), "the argument is left alone"


def test_right_wrong_missed_and_ignored_pixels_look_different():
    picture = np.full((5, 20, 3), (10, 200, 90), dtype=np.uint8)
    predicted, truth = np.zeros((5, 20), dtype=bool), np.zeros((5, 20), dtype=np.uint8)
    predicted[:, 0:8] = True
    truth[:, 4:12] = 1
    truth[:, 3] = truth[:, 12] = 255
    shown = judged(picture, predicted, truth)
    assert near(shown[2, 1], WRONG)
    assert (shown[2, 6] == (10, 200, 90)).all()
    assert near(shown[2, 10], MISSED)
    assert (shown[2, 3] == (10, 200, 90)).all(), "an ignored pixel is no error"
    assert shown[2, 12].min() == shown[2, 12].max() > 150
    assert shown[2, 16].min() == shown[2, 16].max() > 150


def small_sampler() -> tuple[SyntheticSource, EpisodeSampler]:
    source = SyntheticSource(images=60, size=65, classes=(1, 2, 3, 4, 5, 6), split="val")
    protocol = Protocol(name="t", query_order="class_first", episodes=40, seeds=(3, 4), min_area=40)
    return source, EpisodeSampler(build_index(source, progress=False), synthetic_5i(0), protocol, 2)


def test_the_first_episodes_of_each_class_are_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSEG_CACHE", str(tmp_path))
    _, sampler = small_sampler()
    chosen = choose_episodes(sampler, per_class=2)
    drawn = list(sampler.episodes(3))
    assert chosen == [spec for c in range(1, 6) for spec in [s for s in drawn if s.class_id == c][:2]]
    assert len(chosen) == 10


def test_each_predictor_gets_its_shots_and_is_judged_on_the_query(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSEG_CACHE", str(tmp_path))
    source, sampler = small_sampler()
    spec = choose_episodes(sampler, 1)[2]
    truth = binary_mask(source.read_labels(spec.query), spec.class_id)
    given = []

    def plain(spec, fusion):
        given.append((spec.supports, fusion))
        right = (truth == 1).float()
        return torch.stack([0.5 - right, right - 0.5]) if len(spec.supports) == 2 else torch.zeros(2, 65, 65)

    evaluator = SimpleNamespace(plain=plain)
    predictors = [Predictor(name, evaluator, k, MeanVector()) for k, name in enumerate(("none", "all"), 1)]
    support, query, truth_shown, *marked = example_panels(spec, source, "bottle", predictors)
    assert given == [(spec.supports[:1], MeanVector()), (spec.supports, MeanVector())]
    assert [(p.title, p.detail) for p in marked] == [("none", "IoU 0.0 %"), ("all", "IoU 100.0 %")]
    assert all("bottle" in panel.alt for panel in (support, query, truth_shown, *marked))
    inside = truth.numpy() == 1
    pixels = source.read_image(spec.query).permute(1, 2, 0).numpy()
    assert (query.picture == pixels).all()
    assert (truth_shown.picture[inside] == pixels[inside]).all()
    assert (marked[1].picture[inside] == pixels[inside]).all()
    assert not (marked[0].picture[inside] == pixels[inside]).all()
    shown = source.read_labels(spec.supports[0]).numpy() == spec.class_id
    first = source.read_image(spec.supports[0]).permute(1, 2, 0).numpy()
    assert (support.picture[shown] == first[shown]).all()
