import io
from dataclasses import replace
from math import sqrt

import pytest
from rich.console import Console

from fewseg.data.protocols import HSNET, Protocol
from fewseg.reports import frame, tables
from fewseg.reports.numbers import Estimate, mean_of, with_interval
from fewseg.reports.options import TableOptions
from fewseg.reports.tables import rich_table, score_cells, spread_line
from result_files import make_counts, make_result


@pytest.fixture
def fold_tables(frame_of):
    return lambda found, **options: frame.fold_tables(frame_of(found, **options))


def cells(table):
    found = score_cells(table)
    return list(found.columns), found.values.tolist()


@pytest.fixture
def results():
    def make(folds=(0, 1, 2, 3), better=0.0, **changes):
        return [make_result(make_counts(f, better), f, **changes) for f in folds]

    return make


def estimate(result):
    return Estimate(value=result.miou_mean, low=result.miou_ci95[0], high=result.miou_ci95[1])


def test_a_row_has_every_fold_and_their_mean_with_intervals(fold_tables, results):
    runs = results()
    (table,) = fold_tables(runs)
    headings, rows = cells(table)
    estimates = [estimate(r) for r in runs]
    assert headings[:10] == [
        *("method", "fusion", "fold 0", "fold 1", "fold 2", "fold 3", "mean", "FB-IoU"),
        *("per-class Dice", "2m/(1+m) of mIoU"),
    ]
    miou = sum(r.miou_mean for r in runs) / 4
    assert rows[0][:10] == [
        "pfenet",
        "mean",
        *(with_interval(e) for e in estimates),
        with_interval(mean_of(estimates)),
        f"{25 * sum(r.fb_iou_mean for r in runs):.1f}",
        f"{25 * sum(r.dice_mean for r in runs):.1f}",
        f"{200 * miou / (1 + miou):.1f}",
    ]


def test_a_mean_over_missing_folds_is_never_printed(fold_tables, results):
    (table,) = fold_tables(results(folds=(0, 1, 3)))
    (row,) = cells(table)[1]
    assert row[4] == "-"
    assert row[6:10] == ["missing fold 2", "-", "-", "-"]
    (table,) = fold_tables(results(folds=(1,)))
    (row,) = cells(table)[1]
    assert row[6] == "missing folds 0, 2, 3"
    assert row[3] != "-"
    assert row[8] == f"{100 * results(folds=(1,))[0].dice_mean:.1f} (fold 1)"


def test_the_number_of_folds_can_be_said(fold_tables, results):
    (table,) = fold_tables(results(folds=(0, 1)), folds=2)
    assert "missing" not in cells(table)[1][0][4]
    with pytest.raises(ValueError, match=r"is of fold 2, outside 0 \.\. 1"):
        fold_tables(results(folds=(2,)), folds=2)


@pytest.mark.parametrize("dataset", ["fss-1000", "fss-1000-drawn"])
def test_the_one_fold_of_fss_1000_is_all_of_it(fold_tables, results, dataset):
    fss, others = fold_tables([*results(folds=(0,), dataset=dataset), *results(folds=(0,))])
    assert (fss.folds, others.folds) == (1, 4)
    headings, (row,) = cells(fss)
    assert headings[:4] == ["method", "fusion", "fold 0", "mean"]
    assert row[3] == row[2]
    assert others.rows[0].missing == "missing folds 1, 2, 3"
    with pytest.raises(ValueError, match=r"is of fold 1, outside 0 \.\. 0"):
        fold_tables(results(folds=(1,), dataset=dataset))


def test_methods_and_fusions_are_rows_and_data_sets_shots_and_protocols_are_tables(fold_tables, results):
    runs = [
        *results(method="scl-pfenet", recipe="r"),
        *results(),
        *results(fusion="average"),
        *results(shots=5),
        *results(protocol={"name": "other"}),
        *results(dataset="pascal-5i"),
    ]
    tables = fold_tables(runs)
    found = [
        (t.dataset, t.shots, t.protocol.split(" ")[0], [tuple(s.split()) for s in t.series]) for t in tables
    ]
    three = [("pfenet", "average"), ("pfenet", "mean"), ("scl-pfenet", "mean")]
    one = [("pfenet", "mean")]
    assert sorted(found) == [
        ("pascal-5i", 1, "mini", one),
        ("voc5i-mini", 1, "mini", three),
        ("voc5i-mini", 1, "other", one),
        ("voc5i-mini", 5, "mini", one),
    ]
    assert found == sorted(found, key=lambda f: f[:2])
    assert all(len(row.frame) == 4 for t in tables for row in t.rows)


def test_title_and_caption_say_what_the_numbers_are(fold_tables, results):
    (table,) = fold_tables(results())
    digest = results()[0].protocol_digest
    assert table.title == "voc5i-mini, 1-shot, mIoU in percent with 95 % intervals"
    assert table.caption == f"protocol mini [{digest}], 2 x 30 episodes a fold"


def test_training_seeds_and_recipes_are_reported_apart_only_where_they_differ(fold_tables, results):
    assert fold_tables(results())[0].series == ["pfenet mean"]
    seeds = [*results(training={"seed": 0}), *results(training={"seed": 1}), *results(method="scl-pfenet")]
    (table,) = fold_tables(seeds)
    assert [s.removesuffix(" mean") for s in table.series] == [
        "pfenet (training seed 0)",
        "pfenet (training seed 1)",
        "scl-pfenet",
    ]
    recipes = [*results(recipe="small"), *results(recipe="large", training={"seed": 3})]
    (table,) = fold_tables(recipes)
    assert [s.removesuffix(" mean") for s in table.series] == [
        "pfenet (large, training seed 3)",
        "pfenet (small, training seed unknown)",
    ]


def test_no_results_make_no_table(fold_tables):
    with pytest.raises(ValueError, match="no results to make a table of"):
        fold_tables([])


def test_published_values_of_another_data_set_stand_in_a_column_that_says_so(fold_tables, results):
    (table,) = fold_tables([*results(), *results(method="matcher", recipe="m")])
    headings, rows = cells(table)
    assert headings[10:] == ["published mean (resnet50, on pascal-5i: NOT this data set)"]
    assert [r[10] for r in rows] == ["-", "60.8"]


def test_published_values_of_the_same_data_set_and_each_backbone_have_their_own_column(fold_tables, results):
    (table,) = fold_tables(results(dataset="pascal-5i"))
    assert cells(table)[0][10:] == ["published mean (resnet50)"]
    (table,) = fold_tables(results(dataset="coco-20i"))
    headings, rows = cells(table)
    assert headings[10:] == ["published mean (resnet101)"]
    assert rows[0][10] == "32.4"


def test_multi_scale_of_one_pass_has_a_published_value_of_its_own_and_of_two_inputs_none(
    fold_tables, results
):
    made = {"method": "sdaanet", "recipe": "voc5i_mini_sdaanet"}
    scales = [{}, {"output_sizes": (241, 353)}, {"sizes": (241, 353)}]
    (table,) = fold_tables([r for own in scales for r in results(**({"sizes": (241,)} | made | own))])
    f = table.results.frame.drop_duplicates("series").fillna({"published": 0}).set_index("series")
    names = [f"sdaanet (at {at} px) mean" for at in ("241", "241, logits at 241 + 353", "241 + 353")]
    assert f.published[names].tolist() == [61.9, 62.2, 0]
    pairs = frame.baseline_pairs(table)
    assert [(a.name, b.name) for a, b in pairs] == [(names[0], names[2]), (names[0], names[1])]


def test_the_terminal_table_has_the_same_cells(fold_tables, results):
    (table,) = fold_tables(results())
    console = Console(width=200, file=io.StringIO())
    console.print(rich_table(score_cells(table), table.title, table.caption, words=2))
    text = console.file.getvalue()
    headings, rows = cells(table)
    assert all(word in text for word in [*headings, table.title, table.caption])
    assert all(part in text for cell in rows[0] for part in cell.split(" [")), "an interval has its own line"
    line = next(line for line in text.splitlines() if "pfenet" in line)
    assert [part.strip() for part in line.split("│")[1:5]] == [cell.split(" [")[0] for cell in rows[0][:4]]


def test_the_names_of_rows_are_not_cut_in_a_narrow_terminal(fold_tables, results):
    (table,) = fold_tables(results(fusion="cross-guided"))
    console = Console(width=80, file=io.StringIO())
    console.print(rich_table(score_cells(table), table.title, table.caption, words=2))
    assert "cross-guided" in console.file.getvalue()


def printed(folder, **options):
    out = io.StringIO()
    tables.run(TableOptions(folder=folder, **options), Console(file=out, width=200))
    return out.getvalue()


def test_a_collapsed_training_is_named_with_its_fold(write):
    watched = {"start": {"prototype_length": 4.0}, "collapsed": {"prototype_length": 40}}
    folder = write("a", 0, training={"seed": 0, "checkpoint": "a", "watched": watched}).parent
    write("b", 1, training={"seed": 0, "checkpoint": "b", "watched": watched | {"collapsed": {}}})
    text = printed(folder)
    assert "pfenet mean, fold 0: its training collapsed (prototype length since step 40)" in text
    assert "fold 1: its training" not in text
    page = folder / "page.md"
    printed(folder, page=page)
    assert (
        "- pfenet mean, fold 0: its training collapsed (prototype length since step 40)." in page.read_text()
    )


def test_results_of_several_rules_for_novel_classes_share_a_table_where_that_is_asked_for(write):
    rules = [{}, {"novel_pixels": "ignored"}, {"drop_novel_training_images": True}]
    for number, rule in enumerate(rules):
        folder = write(str(number), recipe=f"r{number}", protocol=Protocol(name="mini", **rule)).parent
    assert printed(folder).count("mIoU in percent") == 3
    text = printed(folder, any_training=True)
    assert text.count("mIoU in percent") == 1
    for rule in ("are background", "are ignored", "DROPPED"):
        assert text.count(rule) == 1
    write("other", recipe="r3", protocol=Protocol(name="mini", min_area=9))
    assert printed(folder, any_training=True).count("mIoU in percent") == 2


def test_the_line_has_the_deviation_over_seeds_and_the_smallest_difference(results):
    (run,) = results(folds=(0,))
    spread = (0.5 - 0.0123 / 2**0.5, 0.5 + 0.0123 / 2**0.5)  # two seeds with a deviation of 0.0123
    seeds = tuple(replace(seed, miou=end) for seed, end in zip(run.seeds, spread, strict=True))
    line = spread_line(replace(run, seeds=seeds, miou_ci95=(0.49, 0.51)))
    smallest = 100 * (1.959964 + 0.841621) * sqrt(2) * 0.01 / 1.959964
    assert "mIoU 50.0 (+- 1.2 over 2 seeds)" in line
    assert f"60 episodes find differences from {smallest:.1f} points, unpaired" in line
    assert "(one seed)" in spread_line(replace(run, seeds=run.seeds[:1]))


def test_the_protocol_is_reported_in_one_line_with_its_digest(frame_of, results):
    known, other = results(folds=(0,), protocol=HSNET), results(folds=(0,))
    lines = frame_of([*known, *other]).frame.protocol_line.tolist()
    assert lines == [f"protocol {HSNET.line()}", f"protocol mini [{other[0].protocol_digest}]"]
    assert f"[{HSNET.digest()}]" in lines[0]
