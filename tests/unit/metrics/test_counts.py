import numpy as np
import pytest
import torch

from fewseg.metrics.counts import ANY_WAY, COUNT_NAMES, Counts, EpisodeCounts, count, count_ways
from plain import pixel_by_pixel


def random_masks(shape, seed=0, ways=1):
    generator = np.random.default_rng(seed)
    prediction = generator.integers(0, ways + 1, shape).astype(np.uint8)
    truth = generator.choice([*range(ways + 1), 255], shape).astype(np.uint8)
    return prediction, truth


def as_dict(counts):
    return {name: getattr(counts, name).tolist() for name in COUNT_NAMES}


@pytest.mark.parametrize("ways", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("seed", range(3))
def test_counts_agree_with_a_walk_over_the_pixels_and_leave_the_arguments(ways, seed):
    prediction, truth = random_masks((9, 11), seed, ways)
    before = prediction.copy(), truth.copy()
    expected = pixel_by_pixel(prediction, truth, ways)
    assert as_dict(count_ways(prediction, truth, ways)) == expected
    assert all(getattr(count_ways(prediction, truth, ways), name).dtype == np.int64 for name in COUNT_NAMES)
    tensors = torch.from_numpy(prediction).long(), torch.from_numpy(truth)
    assert as_dict(count_ways(*tensors, ways)) == expected
    if ways == 1:
        single = count(prediction, truth)
        assert {name: [value] for name, value in as_dict(single).items()} == expected
        assert single.fg_inter.shape == ()
        assert single.fg_inter.dtype == np.int64
    assert np.array_equal(prediction, before[0])
    assert np.array_equal(truth, before[1])


def test_a_stack_of_masks_counts_like_its_masks_one_by_one_and_batches_can_be_joined():
    prediction, truth = random_masks((4, 6, 5))
    together = count(prediction, truth)
    assert together.fg_union.shape == (4,)
    for i in range(4):
        single = as_dict(count(prediction[i], truth[i]))
        assert {name: getattr(together, name)[i] for name in COUNT_NAMES} == single
    joined = Counts.stack([count(prediction[0], truth[0]), count(prediction[1:], truth[1:])])
    assert as_dict(joined) == as_dict(together)
    assert count(prediction[:0], truth[:0]).fg_inter.shape == (0,)


@pytest.mark.parametrize(
    "form", [torch.from_numpy, lambda p: p.astype(bool), lambda p: torch.from_numpy(p).bool()]
)
def test_arrays_and_tensors_and_booleans_count_alike(form):
    prediction, truth = random_masks((2, 6, 5))
    expected = as_dict(count(prediction, truth))
    assert as_dict(count(form(prediction), torch.from_numpy(truth))) == expected


def test_values_that_are_no_mask_are_refused():
    mask = np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match=r"truth has values \[7\]"):
        count(mask, np.array([[0, 1, 7], [0, 0, 0]], np.uint8))
    with pytest.raises(ValueError, match=r"prediction has values \[255\].*threshold"):
        count(np.array([[0, 1, 255], [0, 0, 0]], np.uint8), mask)
    with pytest.raises(ValueError, match=r"truth has values \[3, 7\]; only 0 .. 2 and 255"):
        count_ways(mask, np.array([[0, 3, 7], [1, 2, 255]], np.uint8), 2)
    with pytest.raises(ValueError, match=r"prediction has values \[3, 255\]; only 0 .. 2"):
        count_ways(np.array([[0, 3, 255], [1, 2, 2]], np.uint8), np.full((2, 3), 255, np.uint8), 2)
    for ways in (0, 255):
        with pytest.raises(ValueError, match="1 to 254 ways"):
            count_ways(mask, mask, ways)


@pytest.mark.parametrize("ways", [None, 1, 2])
@pytest.mark.parametrize(
    "shapes", [((2, 3), (3, 2)), ((3,), (3,)), ((1, 2, 3), (2, 3)), ((1, 1, 2, 3), (1, 1, 2, 3))]
)
def test_shapes_that_do_not_fit_are_refused(shapes, ways):
    masks = [np.zeros(shape, np.uint8) for shape in shapes]
    with pytest.raises(ValueError, match="must have one shape"):
        count(*masks) if ways is None else count_ways(*masks, ways)


def rows(n=3, seed=0, start=0, class_id=1, **more):
    prediction, truth = random_masks((n, 6, 5), seed=start)
    return EpisodeCounts.of(
        count(prediction, truth), seed=seed, episode=range(start, start + n), class_id=class_id, **more
    )


def test_a_table_has_one_row_an_episode():
    prediction, truth = random_masks((2, 6, 5))
    table = EpisodeCounts.of(
        count(prediction, truth),
        seed=7,
        episode=[4, 5],
        class_id=[1, 2],
        query=["q1", "q2"],
        supports=[["a", "b"], ["c", "d"]],
    )
    assert len(table) == 2
    assert table.seed.tolist() == [7, 7]
    assert table.episode.tolist() == [4, 5]
    assert table.class_id.tolist() == [1, 2]
    assert table.query.tolist() == ["q1", "q2"]
    assert table.supports.tolist() == [["a", "b"], ["c", "d"]]
    assert table.fg_inter.tolist() == count(prediction, truth).fg_inter.tolist()
    assert table.seed.dtype == table.fg_inter.dtype == np.int64
    assert table.select(np.array([1, 0])).query.tolist() == ["q2", "q1"]
    one = EpisodeCounts.of(count(prediction[0], truth[0]), seed=0, episode=0, class_id=3)
    assert (len(one), one.query.tolist(), one.supports.shape) == (1, [""], (1, 0))
    full = np.ones((3, 4), np.uint8)  # masks without a background are masks too
    assert EpisodeCounts.of(count(full, full), seed=0, episode=0, class_id=1).bg_union.tolist() == [0]


def test_joined_tables_are_sorted_by_seed_and_episode():
    joined = EpisodeCounts.join([rows(seed=1), rows(seed=0, start=3), rows(seed=0)])
    assert list(zip(joined.seed.tolist(), joined.episode.tolist(), strict=True)) == [
        *((0, i) for i in range(6)),
        *((1, i) for i in range(3)),
    ]
    assert joined.fg_inter.tolist() == [
        *rows(start=0).fg_inter.tolist(),
        *rows(start=3).fg_inter.tolist(),
        *rows(start=0).fg_inter.tolist(),
    ]


def test_an_episode_scored_twice_is_refused():
    with pytest.raises(ValueError, match="episode 2 of seed 0 is in the table more than once"):
        EpisodeCounts.join([rows(), rows(n=1, start=2)])


def test_no_table_and_mixed_shots_cannot_be_joined():
    with pytest.raises(ValueError, match="no episode to join"):
        EpisodeCounts.join([])
    with pytest.raises(ValueError, match=r"different numbers of supports.*\[0, 2\]"):
        EpisodeCounts.join([rows(), rows(start=3, supports=[["a", "b"]] * 3)])


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"class_id has shape \(2,\) for 3 episodes"):
        rows(class_id=[1, 2])
    with pytest.raises(ValueError, match="must have one length"):
        EpisodeCounts(**rows().columns() | {"query": np.array(["a"])})


@pytest.mark.parametrize("column", COUNT_NAMES)
@pytest.mark.parametrize("change", [1, -1, 1000])
def test_counts_that_no_masks_give_are_refused(column, change):
    columns = rows().columns()
    columns[column] = columns[column] + np.array([0, change, 0])
    with pytest.raises(ValueError, match=r"row 1 .seed 0, episode 1. has counts that no pair"):
        EpisodeCounts(**columns)


@pytest.mark.parametrize(
    "row",
    [
        {"fg_inter": -1, "fg_union": 5, "bg_inter": 0, "bg_union": 6, "fg_pred": 2, "fg_true": 2},
        {"fg_inter": 1, "fg_union": 2, "bg_inter": -1, "bg_union": 0, "fg_pred": 1, "fg_true": 2},
        {"fg_inter": 3, "fg_union": 3, "bg_inter": 1, "bg_union": 1, "fg_pred": 1, "fg_true": 5},
        {"fg_inter": 3, "fg_union": 3, "bg_inter": 1, "bg_union": 1, "fg_pred": 5, "fg_true": 1},
    ],
)
def test_counts_that_add_up_but_are_out_of_range_are_refused(row):
    wrong = Counts(**{name: np.array(value) for name, value in row.items()})
    with pytest.raises(ValueError, match="no pair of masks"):
        EpisodeCounts.of(wrong, seed=0, episode=0, class_id=1)


def two_ways(episodes=(0, 1), seed=0):
    tables = []
    for i in episodes:
        generator = np.random.default_rng(i)
        maps = generator.integers(0, 3, (2, 6, 5))
        tables.append(
            EpisodeCounts.of(
                count_ways(maps[0], maps[1], 2),
                seed=seed,
                episode=i,
                class_id=[7, 4, ANY_WAY],
                query=f"q{i}",
                supports=[["a", "b"], ["c", "d"], ["", ""]],
            )
        )
    return EpisodeCounts.join(tables)


def test_an_episode_of_two_ways_has_three_rows_and_is_one_episode():
    table = two_ways()
    assert (len(table), table.episodes) == (6, 2)
    assert table.episode.tolist() == [0, 0, 0, 1, 1, 1]
    assert table.class_id.tolist() == [0, 4, 7] * 2
    assert table.query.tolist() == ["q0"] * 3 + ["q1"] * 3
    assert table.supports.tolist() == [["", ""], ["c", "d"], ["a", "b"]] * 2
    assert EpisodeCounts.join([two_ways((0,)), two_ways((0,), seed=1)]).episodes == 2
    assert rows(n=5).episodes == 5


def test_a_class_scored_twice_in_one_episode_is_refused():
    with pytest.raises(ValueError, match=r"episode 1 of seed 0 .* more than once \(class 0\)"):
        EpisodeCounts.join([two_ways((0, 1)), two_ways((1,))])


def test_a_table_knows_whether_its_episodes_are_whole():
    rows().check_ways(1)
    table = two_ways()
    table.check_ways(2)
    with pytest.raises(ValueError, match="episode 0 of seed 0 has 3 rows, 1 of class 0, and 1-way"):
        table.check_ways(1)
    with pytest.raises(ValueError, match="3-way episodes have 4, 1 of class 0"):
        table.check_ways(3)
    with pytest.raises(ValueError, match="has 1 rows, 1 of class 0, and 2-way"):
        table.select(table.class_id == 0).check_ways(2)
    with pytest.raises(ValueError, match="has 1 rows, 0 of class 0, and 2-way episodes have 3"):
        rows().check_ways(2)
    with pytest.raises(ValueError, match="episode 1 of seed 0 has 2 rows"):
        table.select(np.arange(5)).check_ways(2)
    renamed = table.class_id.copy()
    renamed[3] = 9
    with pytest.raises(ValueError, match="episode 1 of seed 0 has 3 rows, 0 of class 0"):
        EpisodeCounts(**table.columns() | {"class_id": renamed}).check_ways(2)
