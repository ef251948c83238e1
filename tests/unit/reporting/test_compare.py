import io

import pytest
from rich.console import Console

from fewseg.metrics import (
    bootstrap_score,
    minimum_detectable_difference,
    paired_difference,
    trainings_difference,
)
from fewseg.reports import comparison
from fewseg.reports.comparison import comparison_lines, comparison_table
from fewseg.reports.numbers import points
from fewseg.reports.options import CompareOptions
from result_files import make_counts


def compare(a, b, **options):
    return comparison.compare(CompareOptions(a=a, b=b, **options))


class OfNewerDigest(dict):
    """The protocol of the other results, with a digest that holds more than its fields show."""

    def digest(self):
        return "abc"


def shown(table):
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_two_results_on_the_same_episodes_are_compared_pair_by_pair(write):
    a, b = write("a"), write("b", better=0.02, method="scl-pfenet")
    found = compare(a, b)
    expected = paired_difference(make_counts(), make_counts(better=0.02), [1, 2])
    assert found.paired == expected
    assert (found.difference.value, found.difference.low, found.difference.high) == (
        expected.difference,
        expected.interval.low,
        expected.interval.high,
    )
    images = paired_difference(make_counts(), make_counts(better=0.02), [1, 2], over="queries")
    assert found.over_queries == images != expected
    assert f"over query images, each with all its episodes: {points(images.difference)}" in "\n".join(
        comparison_lines(found)
    )
    assert found.differences == found.made_differently == ()  # methods may differ
    assert found.detectable == minimum_detectable_difference(expected.interval.standard_error, episodes=60)
    assert found.difference.value == pytest.approx(found.b.miou_mean - found.a.miou_mean)
    assert found.difference.value > 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"protocol": {"name": "mini", "label_size": "network"}},
            "protocol label_size: original and network",
        ),
        ({"protocol": {"name": "mini"}}, "protocol label_size: original and nothing"),
        (
            {"protocol": {"name": "mini", "label_size": "original", "coco_split": "A", "fusion": "any"}},
            "protocol coco_split: B and A",
        ),
        (
            {"protocol": OfNewerDigest(name="mini", label_size="original")},
            "protocol digest [0-9a-f]{16} and abc",
        ),
        ({"shots": 5}, "shots 1 and 5"),
        ({"on": "support"}, "on 'query' and 'support'"),
        ({"dataset": "pascal-5i"}, "dataset 'voc5i-mini' and 'pascal-5i'"),
        ({"class_split": {"novel": [1, 2], "base": [9]}}, r"class split base: nothing and \[9\]"),
    ],
)
def test_results_of_different_protocols_are_refused_and_it_says_what_differs(write, change, says):
    a, b = write("a"), write("b", **change)
    with pytest.raises(ValueError, match=f"not comparable: .*{says}"):
        compare(a, b)
    found = compare(a, b, allow_different_protocols=True)
    assert found.paired is not None, "the episodes are the same, so they can still be paired"
    assert found.differences
    assert f"different: {found.differences[0]}" in comparison_lines(found)


def test_results_of_different_folds_are_refused_and_unpaired_when_allowed(write):
    a, b = write("a"), write("b", fold=1)
    with pytest.raises(ValueError, match=r"fold 0 and 1; class split novel: \[1, 2\] and \[3, 4\]"):
        compare(a, b)
    found = compare(a, b, allow_different_protocols=True)
    assert found.paired is None
    assert found.difference == found.unpaired
    below = (found.b.miou_mean - found.b.miou_ci95[0]) ** 2 + (found.a.miou_ci95[1] - found.a.miou_mean) ** 2
    above = (found.b.miou_ci95[1] - found.b.miou_mean) ** 2 + (found.a.miou_mean - found.a.miou_ci95[0]) ** 2
    assert found.unpaired.low == pytest.approx(found.unpaired.value - below**0.5)
    assert found.unpaired.high == pytest.approx(found.unpaired.value + above**0.5)
    errors = [bootstrap_score(make_counts(f), [2 * f + 1, 2 * f + 2]).standard_error for f in (0, 1)]
    error = (errors[0] ** 2 + errors[1] ** 2) ** 0.5
    assert found.detectable == pytest.approx(minimum_detectable_difference(error, episodes=60))
    text = shown(comparison_table(found))
    assert any("NOT paired" in line for line in comparison_lines(found))
    assert "IoU" in text
    assert "aeroplane" not in text, "classes that only one of them has cannot be compared"


def test_one_protocol_on_other_images_is_refused_and_unpaired_when_allowed(write):
    a, b = write("a"), write("b", drawn_from=1)
    with pytest.raises(ValueError, match="one protocol but not the same episodes"):
        compare(a, b)
    assert compare(a, b, allow_different_protocols=True).paired is None


def test_the_table_has_scores_in_percent_and_differences_in_points(write):
    found = compare(write("a"), write("b", better=0.02, method="scl-pfenet"))
    text = shown(comparison_table(found))
    low, high = found.b.miou_ci95
    assert f"{100 * found.b.miou_mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]" in text
    difference = found.difference
    expected = f"{100 * difference.value:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
    assert expected in text
    assert "scl-pfenet mean, 1-shot, voc5i-mini fold 0 against pfenet mean" in text
    for label, first, second in [
        ("FB-IoU", found.a.fb_iou_mean, found.b.fb_iou_mean),
        ("per-class Dice", found.a.dice_mean, found.b.dice_mean),
        ("2m/(1+m) of mIoU", *(2 * r.miou_mean / (1 + r.miou_mean) for r in (found.a, found.b))),
        ("IoU aeroplane", found.a.per_class_mean[1], found.b.per_class_mean[1]),
        ("IoU bicycle", found.a.per_class_mean[2], found.b.per_class_mean[2]),
    ]:
        line = next(part for part in text.splitlines() if f" {label} " in part)
        cells = [f"{100 * first:.1f}", f"{100 * second:.1f}", f"{100 * (second - first):+.1f}"]
        assert [cell.strip() for cell in line.split("│")[2:5]] == cells
    below = "\n".join(comparison_lines(found))
    assert f"{100 * found.detectable:.2f} points" in below
    assert f"twice: {found.paired.p_like:.3f}" in below
    assert f"protocol mini [{found.a.protocol_digest}]" in below


def test_a_precision_and_a_size_that_differ_are_named_and_do_not_forbid_the_comparison(write):
    a = write("a", config={"precision": "fp32", "size": 241})
    b = write("b", better=0.02, config={"precision": "bf16", "size": 473})
    lines = comparison_lines(compare(a, b))
    assert "also different, and not of the protocol: precision fp32 and bf16" in lines
    assert "also different, and not of the protocol: size 241 and 473" in lines


def test_the_difference_that_a_planned_number_of_episodes_finds_can_be_asked_for(write):
    a, b = write("a"), write("b", better=0.02)
    now, planned = compare(a, b), compare(a, b, episodes=15)
    assert planned.detectable == pytest.approx(2 * now.detectable)
    assert "smallest difference that 15 episodes" in comparison_lines(planned)[-1]
    with pytest.raises(ValueError, match="planned episodes must be 1 or more, got 0"):
        compare(a, b, episodes=0)


def trained(seed, steps=100):
    return {"training": {"seed": seed, "config": {"steps": steps, "seed": seed}}}


def test_several_trainings_give_an_interval_with_the_noise_of_training(write):
    lifts = {"a0": 0.0, "a1": 0.02, "b0": 0.05, "b1": 0.02, "b2": 0.07}
    paths = {name: write(name, better=lift, **trained(int(name[1]))) for name, lift in lifts.items()}
    found = compare(paths["a0"], paths["b0"], more_a=[paths["a1"]], more_b=[paths["b1"], paths["b2"]])
    counts = [[make_counts(better=lifts[n]) for n in lifts if n[0] == side] for side in "ab"]
    expected = trainings_difference(*counts, [1, 2])
    assert found.trainings == expected
    ends = (expected.difference, expected.interval.low, expected.interval.high)
    text = "\n".join(comparison_lines(found))
    shown_ends = f"{points(ends[0])} [{points(ends[1])}, {points(ends[2])}]"
    assert f"over 2 and 3 trainings and over query images: {shown_ends}" in text
    assert f"two trainings is {100 * expected.training_error:.1f} points" in text
    assert f"8 times of 10: {expected.trainings_needed()}" in text


def test_one_training_of_each_is_named_as_one_and_none_is_not(write):
    one = comparison_lines(compare(write("a", **trained(0)), write("b", better=0.1, **trained(0))))
    assert "one training of each: no interval holds the noise of training; see --more-a, --more-b" in one
    none = comparison_lines(compare(write("c"), write("d", better=0.1)))
    assert not any("training" in line for line in none)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (trained(0), "of training seed 0"),
        (trained(1, steps=50), "its train.steps: 100 and 50"),
        (
            trained(1) | {"config": {"method": {"type": "PFENet", "channels": 8}}},
            "its method.channels: 64 and 8",
        ),
        (trained(1) | {"shots": 5}, "shots 1 and 5"),
    ],
)
def test_results_that_are_no_other_training_of_the_same_are_refused(write, change, says):
    a, b, more = write("a", **trained(0)), write("b", **trained(0)), write("more", **change)
    with pytest.raises(ValueError, match=f"more.json is not another training of .*a.json: .*{says}"):
        compare(a, b, more_a=[more])
