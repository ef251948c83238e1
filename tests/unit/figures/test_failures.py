"""What counts as which failure."""

import numpy as np
import pandas as pd
import pytest
import torch

from fewseg.data.draws import Draws
from fewseg.data.episodes import EpisodeSpec
from fewseg.metrics import EpisodeCounts, count
from fewseg.reports.figures.drawing import overlay, unit_range
from fewseg.reports.figures.failures import (
    PIXELS,
    Failures,
    examples,
    failures,
    iou_of,
    outcomes_of,
    pixel_outcome,
)


def reported(*pixels):
    one = pd.DataFrame([pixels], columns=PIXELS[: len(pixels)])
    return [name for name, match in failures(one).items() if match[0]]


@pytest.mark.parametrize(
    ("pixels", "rules"),
    [
        ((900, 50, 50, 9000, 50), []),
        ((50, 0, 50, 900, 0), []),  # an IoU of a half is no failure
        ((9, 0, 91, 900, 0), ["failed", "missed target"]),
        ((10, 0, 90, 900, 0), ["failed", "none of these"]),
        ((100, 225, 0, 675, 0), ["failed", "background kept"]),
        ((100, 224, 0, 676, 0), ["failed", "none of these"]),
        ((60, 240, 40, 660, 120), ["failed", "none of these"]),  # 15 % of the background, and objects
        ((60, 340, 40, 560, 120), ["failed", "background kept"]),
        ((60, 140, 40, 760, 100), ["failed", "similar class"]),
        ((60, 140, 40, 760, 99), ["failed", "none of these"]),
        ((0, 100, 100, 800, 100), ["failed", "missed target", "similar class"]),
        ((15, 100, 4, 881, 0), ["failed", "tiny target"]),
        ((15, 100, 5, 880, 0), ["failed", "none of these"]),
        ((19, 10, 0, 971, 0), []),  # tiny, but found
        ((0, 0, 100, 900, 0), ["failed", "missed target"]),
    ],
)
def test_an_episode_matches_the_rules_that_its_pixels_tell(pixels, rules):
    assert reported(*pixels) == rules


def test_counts_show_all_rules_but_that_of_other_classes():
    assert reported(0, 100, 100, 800) == ["failed", "missed target"]
    one = pd.DataFrame([(0, 1, 1, 1)], columns=PIXELS[:4])
    assert list(failures(one)) == [
        "failed",
        "missed target",
        "background kept",
        "tiny target",
        "none of these",
    ]


def test_examples_are_of_queries_that_were_not_shown_yet():
    query = [f"image {k // 3}" for k in range(15)]
    episodes = [(0, EpisodeSpec(k, 1, query[k], ("support",))) for k in range(15)]
    shown = {"image 2"}
    chosen = examples(Draws("test", 1), np.arange(15), episodes, shown)
    assert len({query[k] for k in chosen} - {"image 2"}) == len(chosen) == 2
    assert shown == {"image 2", *(query[k] for k in chosen)}
    assert examples(Draws("test", 1), np.arange(6, 9), episodes, shown) == []


def test_pixels_of_an_answer_are_those_that_evaluation_counts():
    generator = np.random.default_rng(0)
    labels = generator.choice([0, 3, 7, 255], (20, 30))
    marked = generator.random((20, 30)) < 0.4
    hit, wrong, lost, clear, other = pixel_outcome(marked, labels, 7)
    truth = np.where(labels == 7, 1, np.where(labels == 255, 255, 0))
    counts = count(marked, truth)
    table = EpisodeCounts.of(counts, seed=0, episode=0, class_id=7)
    from_counts = outcomes_of(table)
    assert from_counts.values.tolist() == [[hit, wrong, lost, clear]]
    assert other == sum(bool(marked[y, x]) and labels[y, x] == 3 for y in range(20) for x in range(30))
    assert iou_of(from_counts)[0] == pytest.approx(hit / (hit + wrong + lost))


@pytest.mark.parametrize("name", ["sdaanet_saam", "sdaanet_sdpm"])
def test_failures_of_saam_show_its_attention_on_the_query(study, drawn, name):
    made = study(name)
    Failures(made).make()
    rows, records = drawn[f"failures-{name}-fold0"]
    assert records
    (model,) = made.models
    for row, record in zip(rows, records, strict=True):
        assert len(row) == (4 if name == "sdaanet_saam" else 3)
        if len(row) == 3:
            continue
        support, query = (model.data.source.read_image(record[id]) for id in ("support", "query"))
        mask = (model.data.source.read_labels(record["support"]) == record["class"]).to(torch.uint8)
        method = model.method
        with torch.no_grad():
            guides = method.encode_shots(method.extract(support[None] / 255), mask[None])
            maps = method.encode_query(method.extract(query[None] / 255))
            cells = method.attention_map(maps, guides)
        pixels = torch.nn.functional.interpolate(cells, query.shape[1:], mode="bilinear", align_corners=True)
        expected = overlay(query.permute(1, 2, 0).numpy(), unit_range(pixels[0, 0].numpy()))
        assert np.abs(row[2].astype(int) - expected.astype(int)).mean() < 4
