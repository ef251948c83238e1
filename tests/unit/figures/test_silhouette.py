"""How well classes part, against scikit-learn and plain loops."""

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from fewseg.figures.silhouette import distances, separation, silhouette, silhouette_gain


def points(n=24, d=5, classes=3, apart=2.0, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes + 7
    return generator.normal(size=(n, d)) + apart * np.eye(classes, d)[labels - 7], labels


@pytest.mark.parametrize("metric", ["cosine", "fidelity", "euclidean"])
def test_distances_are_those_of_plain_loops(metric):
    values, _ = points()
    found = distances(values, metric)
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
            plain = {"cosine": 1 - cosine, "fidelity": 1 - cosine**2, "euclidean": np.linalg.norm(a - b)}
            assert found[i, j] == pytest.approx(plain[metric], abs=1e-7)


def test_opposite_vectors_are_one_by_fidelity_and_far_apart_by_cosine():
    pair = np.array([[1.0, 2.0], [-1.0, -2.0]])
    assert distances(pair, "fidelity")[0, 1] == pytest.approx(0)
    assert distances(pair, "cosine")[0, 1] == pytest.approx(2)


def test_a_zero_vector_is_at_right_angles():
    assert distances(np.array([[0.0, 0.0], [1.0, 0.0]]), "cosine")[0, 1] == 1


@pytest.mark.parametrize("metric", ["cosine", "fidelity", "euclidean"])
def test_the_silhouette_is_that_of_scikit_learn(metric):
    values, labels = points()
    apart = distances(values, metric)
    assert silhouette(apart, labels) == pytest.approx(silhouette_score(apart, labels, metric="precomputed"))


def test_a_class_of_one_point_counts_nothing_as_in_scikit_learn():
    values, labels = points()
    labels[0] = 99
    apart = distances(values, "cosine")
    assert silhouette(apart, labels) == pytest.approx(silhouette_score(apart, labels, metric="precomputed"))


def test_a_weight_stands_for_copies_but_for_those_of_the_point_itself():
    values, labels = points(n=9)
    apart = distances(values, "euclidean")
    weights = np.array([1, 2, 0, 3, 1, 1, 2, 1, 1], dtype=float)
    total = 0.0
    for i in range(9):
        mean = {}
        for c in sorted(set(labels.tolist())):
            copies = [(apart[i, j], weights[j]) for j in range(9) if labels[j] == c and j != i]
            below = sum(w for _, w in copies)
            mean[c] = sum(x * w for x, w in copies) / below if below else None
        a = mean.pop(labels[i])
        b = min(v for v in mean.values() if v is not None)
        total += weights[i] * (0 if a is None else (b - a) / max(a, b))
    assert silhouette(apart, labels, weights) == pytest.approx(total / weights.sum())


def test_one_class_alone_is_refused():
    values, labels = points()
    with pytest.raises(ValueError, match="points of two classes at least"):
        silhouette(distances(values, "cosine"), np.ones_like(labels))


def test_within_and_between_are_means_over_pairs():
    apart = np.array([[0.0, 1, 4], [1, 0, 6], [4, 6, 0]])
    found = separation(apart, np.array([1, 1, 2]))
    assert found.within == 1
    assert found.between == 5


def test_the_interval_holds_the_value_and_pairs_what_is_drawn_alike():
    values, labels = points(n=60, apart=4)
    tight = distances(values, "euclidean")
    loose = distances(values + 4 * np.random.default_rng(1).normal(size=values.shape), "euclidean")
    a, b = separation(loose, labels), separation(tight, labels)
    assert a.silhouette.low < a.silhouette.value < a.silhouette.high
    gain = silhouette_gain(a, b)
    assert gain.value == pytest.approx(b.silhouette.value - a.silhouette.value)
    assert gain.low > 0
    unpaired = (b.silhouette.high - b.silhouette.low) + (a.silhouette.high - a.silhouette.low)
    assert gain.high - gain.low < unpaired
    assert silhouette_gain(a, a) == silhouette_gain(b, b)
    assert silhouette_gain(a, a).low == silhouette_gain(a, a).high == 0


def test_points_of_a_group_are_drawn_together():
    values, labels = points(n=30)
    values, labels = np.repeat(values, 4, axis=0), np.repeat(labels, 4)
    apart = distances(values + 1e-3 * np.random.default_rng(0).normal(size=values.shape), "euclidean")
    alone = separation(apart, labels).silhouette
    grouped = separation(apart, labels, np.repeat(np.arange(30), 4)).silhouette
    assert grouped.high - grouped.low > 1.4 * (alone.high - alone.low)
