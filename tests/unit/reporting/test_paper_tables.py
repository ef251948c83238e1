import tomllib
from importlib.resources import files
from itertools import product
from statistics import stdev

import pytest

from fewseg.engine.results import load_with_counts
from fewseg.metrics import bootstrap_score, paired_difference
from fewseg.recipes.registry import variants
from fewseg.reports.frame import load_results, results_of
from fewseg.reports.numbers import Estimate, mean_of
from fewseg.reports.papers import measured_how, paper_tables
from fewseg.reports.published import layouts, printed_in, published_values
from result_files import make_counts, make_result

SCL = {"method": "scl-pfenet", "fusion": "average", "recipe": "voc5i_mini_scl"}


def tables_of(folder):
    made = paper_tables(load_results(folder))
    return {(t.layout.paper, t.layout.number): t for t in made}


def row_of(table, label, section=0):
    return next(row for row in table.sections[section][1] if row.layout.label == label)


@pytest.fixture
def folder(write, tmp_path):
    """PFENet and SCL on the small set: all folds of one shot, fold 3 of five shots."""
    for fold in range(4):
        write(f"pfenet{fold}", fold)
        write(f"scl{fold}", fold, better=0.05, **SCL)
    write("five", 3, shots=5)
    return tmp_path / "results"


def test_there_are_the_fifteen_tables_of_the_papers_in_their_order():
    assert [t.layout.name for t in paper_tables(results_of({}))] == [
        *(f"SCL, Table {n}" for n in range(1, 7)),
        *(f"SRPNet, Table {n}" for n in range(1, 5)),
        *(f"SD-AANet, Table {n}" for n in ("I", "II", "III", "IV", "V")),
    ]


def test_every_printed_value_stands_in_its_table_once():
    shown = []
    for table in paper_tables(results_of({})):
        place = (table.layout.paper, table.layout.number)
        for row in table.rows:
            shown += [(*place, row.layout.name, v.shots, v.column) for v in row.printed if v]
    assert sorted(shown) == sorted((v.paper, v.table, v.row, v.shots, v.column) for v in published_values())


@pytest.mark.parametrize("layout", layouts(), ids=lambda layout: f"{layout.paper}-{layout.number}")
def test_the_rows_are_those_of_the_paper_and_know_who_they_are(layout):
    printed = [row for variant in variants().values() for row in variant.printed]
    places = {" / ".join((r.paper, r.table_for(layout.dataset), r.row)) for r in printed}
    for section in layout.sections:
        names = [row.name for row in section.rows]
        assert names
        for row in section.rows:
            assert bool(row.ours) != bool(row.without)
            assert set(row.ours) <= places
            assert row.over in {"", *names[: names.index(row.name)]}
            assert len(row.marks) == len(layout.marks)


def test_rows_are_described_under_their_printed_names():
    for table in tomllib.loads((files("fewseg.reports") / "papers.toml").read_text())["table"]:
        names = {name for name, *_ in printed_in(table["paper"], table["number"])}
        assert set(table.get("rows", ())) <= names


def test_each_row_of_ours_that_a_paper_prints_is_in_a_table():
    placed = {place for t in layouts() for s in t.sections for row in s.rows for place in row.ours}
    for row in (row for variant in variants().values() for row in variant.printed):
        for table in {row.table, row.coco_table} - {""}:
            assert f"{row.paper} / {table} / {row.row}" in placed


def test_without_results_every_row_of_ours_says_not_run():
    for table in paper_tables(results_of({})):
        assert table.datasets == (table.layout.dataset,)
        for row in table.rows:
            lines = [cells for found in row.lines.values() for _, cells in found]
            assert bool(lines) == (not row.layout.without)
            assert all(c.status == "not run" and c.estimate is None for cells in lines for c in cells)


def test_a_fold_and_the_mean_are_those_of_the_results(folder):
    row = row_of(tables_of(folder)["scl", "1"], "PFENet (TPAMI'20)")
    ((_, cells),) = row.lines["voc5i-mini"]
    runs = [load_with_counts(folder / f"pfenet{fold}.json")[0] for fold in range(4)]
    each = [Estimate(value=r.miou_mean, low=r.miou_ci95[0], high=r.miou_ci95[1]) for r in runs]
    assert [cell.estimate for cell in cells] == [*each, mean_of(each)]
    assert cells[1].std == pytest.approx(stdev([s.miou for s in runs[1].seeds]))
    of_seeds = [sum(r.seeds[i].miou for r in runs) / 4 for i in (0, 1)]
    assert cells[4].std == pytest.approx(stdev(of_seeds))
    assert [value.percent for value in row.printed] == [61.7, 69.5, 55.4, 56.3, 60.8]


@pytest.mark.parametrize(
    ("place", "label", "score"),
    [(("scl", "3"), "PFENet (TPAMI'20) *", "fb_iou"), (("srpnet", "3"), "PFENet", "dice")],
)
def test_fb_iou_and_the_mean_dice_of_the_classes_have_their_own_scores_and_intervals(
    folder, place, label, score
):
    table = tables_of(folder)[place]
    column = [c.score for c in table.sections[0][0].columns].index(score)
    ((_, cells),) = row_of(table, label).lines["voc5i-mini"]
    each = []
    for fold in range(4):
        result, counts = load_with_counts(folder / f"pfenet{fold}.json")
        interval = bootstrap_score(counts, result.classes, score)
        value = getattr(result, f"{score}_mean")
        each.append(Estimate(value=value, low=interval.low, high=interval.high))
    assert cells[column].estimate == mean_of(each)


def dice(miou):
    return 2 * miou / (1 + miou)


def test_srpnets_printed_dice_stands_beside_ours_of_the_miou(folder, write):
    for fold in range(4):
        write(
            f"srp{fold}", fold, better=0.05, method="srpnet", fusion="iterative", recipe="voc5i_mini_srpnet"
        )
    table = tables_of(folder)["srpnet", "3"]
    row = row_of(table, "SRPNet (ours)")
    assert [v and v.percent for v in row.printed] == [77.2, 81.9, 71.6, 73.5, 76.2, None]
    ((_, cells),) = row.lines["voc5i-mini"]
    runs, bases = (
        [load_with_counts(folder / f"{name}{fold}.json")[0] for fold in range(4)]
        for name in ("srp", "pfenet")
    )
    ((_, miou),) = row_of(tables_of(folder)["srpnet", "2"], "SRPNet (ours)").lines["voc5i-mini"]
    below = [*(r.miou_mean for r in bases), sum(r.miou_mean for r in bases) / 4]
    own = [*(r.miou_mean for r in runs), sum(r.miou_mean for r in runs) / 4]
    for cell, of_miou, m, base in zip(cells[:5], miou, own, below, strict=True):
        assert cell.estimate.value == pytest.approx(dice(m))
        assert cell.estimate.low == pytest.approx(dice(of_miou.estimate.low))
        assert cell.estimate.high == pytest.approx(dice(of_miou.estimate.high))
        assert cell.gain.value == pytest.approx(dice(m) - dice(base))
        assert cell.gain.low == pytest.approx(dice(base + of_miou.gain.low) - dice(base))
        assert cell.gain.high == pytest.approx(dice(base + of_miou.gain.high) - dice(base))
    assert cells[1].std == pytest.approx(stdev([dice(s.miou) for s in runs[1].seeds]))
    assert cells[4].std == pytest.approx(
        stdev([dice(sum(r.seeds[i].miou for r in runs) / 4) for i in (0, 1)])
    )


def test_a_gain_is_paired_with_the_rows_baseline_on_the_same_episodes(folder):
    tables = tables_of(folder)
    ((_, cells),) = row_of(tables["scl", "1"], "ours-SCL (PFENet)").lines["voc5i-mini"]
    pairs = []
    for fold in range(4):
        a, b = (load_with_counts(folder / f"{name}{fold}.json") for name in ("pfenet", "scl"))
        found = paired_difference(a[1], b[1], a[0].classes, over="queries")
        pairs.append(Estimate(value=found.difference, low=found.interval.low, high=found.interval.high))
    assert [cell.gain for cell in cells] == [*pairs, mean_of(pairs)]
    row = row_of(tables["scl", "1"], "ours-SCL (PFENet)")
    assert row.over == "PFENet (TPAMI'20)"
    assert [round(gain, 1) for gain in row.printed_gains] == [1.3, 0.5, 1.1, 1.4, 1.0]
    assert row_of(tables["scl", "1"], "PFENet (TPAMI'20)").printed_gains == (None,) * 5


def test_a_missing_fold_has_no_mean_and_is_named(folder):
    row = row_of(tables_of(folder)["scl", "1"], "PFENet (TPAMI'20)", section=1)
    ((_, cells),) = row.lines["voc5i-mini"]
    assert [cell.status for cell in cells] == ["not run"] * 3 + ["", "missing folds 0, 1, 2"]
    assert cells[4].estimate is None
    assert cells[4].std is None
    assert cells[3].estimate is not None


def test_two_different_results_of_one_row_are_both_left_out_and_named(write, tmp_path):
    for fold in range(4):
        write(f"fold{fold}", fold)
    write("again", 2, better=0.1)
    table = tables_of(tmp_path / "results")["scl", "1"]
    assert table.problems == (
        "2 results of one row, pfenet mean 1-shot on voc5i-mini fold 2: again.json and fold2.json: left out, "
        "keep one of the files",
    )
    ((_, cells),) = row_of(table, "PFENet (TPAMI'20)").lines["voc5i-mini"]
    assert [cell.status for cell in cells] == ["", "", "not run", "", "missing fold 2"]


def test_a_gain_without_its_baseline_says_so(write, tmp_path):
    for fold in range(4):
        write(f"scl{fold}", fold, **SCL)
    write("pfenet", 2, training={"config": {"steps": 100, "batch": 8}})
    row = row_of(tables_of(tmp_path / "results")["scl", "1"], "ours-SCL (PFENet)")
    assert row.lines["voc5i-mini"][0][1][4].gain_status == "trained for another length"
    (tmp_path / "results" / "pfenet.json").unlink()
    write("five", 2, shots=5)
    row = row_of(tables_of(tmp_path / "results")["scl", "1"], "ours-SCL (PFENet)")
    assert row.lines["voc5i-mini"][0][1][4].gain_status == "baseline not run"
    write("pfenet", 2)
    row = row_of(tables_of(tmp_path / "results")["scl", "1"], "ours-SCL (PFENet)")
    assert row.lines["voc5i-mini"][0][1][4].gain_status == "baseline missing folds 0, 1, 3"
    assert row.lines["voc5i-mini"][0][1][2].gain is not None


def test_results_of_other_episodes_are_not_paired(write, tmp_path):
    for fold in range(4):
        write(f"pfenet{fold}", fold)
        write(f"scl{fold}", fold, drawn_from=1, **SCL)
    row = row_of(tables_of(tmp_path / "results")["scl", "1"], "ours-SCL (PFENet)")
    gains = {cell.gain_status for cell in row.lines["voc5i-mini"][0][1]}
    assert gains == {"other episodes"}


def test_training_seeds_and_protocols_are_lines_of_their_own_and_never_mixed(write, tmp_path):
    write("a", 0, training={"seed": 0})
    write("b", 1, training={"seed": 0})
    write("c", 2, training={"seed": 1})
    write("d", 3, training={"seed": 0}, protocol={"name": "quick", "label_size": "original"})
    row = row_of(tables_of(tmp_path / "results")["scl", "1"], "PFENet (TPAMI'20)")
    lines = row.lines["voc5i-mini"]
    assert [cells[4].status for _, cells in lines] == [
        "missing folds 2, 3",
        "missing folds 0, 1, 3",
        "missing folds 0, 1, 2",
    ]
    assert "training seed 0" in lines[0][0]
    assert "protocol mini" in lines[0][0]
    assert any("protocol quick" in difference for difference, _ in lines)


def test_the_small_set_never_stands_in_the_column_of_the_papers_set(write, tmp_path):
    write("mini", 0)
    write("full", 0, better=0.1, dataset="pascal-5i", recipe="pascal_pfenet_resnet50")
    row = row_of(tables_of(tmp_path / "results")["scl", "1"], "PFENet (TPAMI'20)")
    mini, full = (row.lines[d][0][1][0] for d in ("voc5i-mini", "pascal-5i"))
    assert mini.estimate.value < full.estimate.value
    assert "on voc5i-mini (NOT the papers' data)" in measured_how(mini.row)
    assert "on PASCAL-5i" in measured_how(full.row)
    assert "NOT" not in measured_how(full.row)


def test_another_backbone_is_no_row_of_the_paper_on_the_papers_set(write, tmp_path):
    config = {"method": {"type": "PFENet", "backbone": {"name": "resnet101"}}}
    write("full", 0, dataset="pascal-5i", recipe="pascal_pfenet_resnet50", config=config)
    row = row_of(tables_of(tmp_path / "results")["scl", "1"], "PFENet (TPAMI'20)")
    assert row.lines["pascal-5i"][0][1][0].status == "not run"


def test_results_of_several_ways_are_no_row_of_a_paper():
    counts = make_counts()
    result = make_result(counts)
    object.__setattr__(result, "ways", 2)
    row = row_of(paper_tables(results_of({"a": result}, {"a": counts}))[0], "PFENet (TPAMI'20)")
    assert list(row.lines) == ["pascal-5i"]


def test_a_model_stands_in_every_table_that_prints_it(write, tmp_path):
    canet = {"method": "canet", "fusion": "average", "recipe": "voc5i_mini_canet"}
    for fold in range(4):
        write(f"canet{fold}", fold, **canet)
    tables = tables_of(tmp_path / "results")
    means = []
    for place, label, column in (
        (("scl", "1"), "CANet (CVPR'19)", 4),
        (("scl", "4"), "baseline", 0),
        (("srpnet", "2"), "CANet", 4),
        (("sd-aanet", "1"), "CANet", 4),
    ):
        means.append(row_of(tables[place], label).lines["voc5i-mini"][0][1][column].estimate)
    assert means[0] is not None
    assert means == [means[0]] * 4
    later = row_of(tables["scl", "1"], "CANet (CVPR'19)", section=1)  # there it is the attention's
    assert later.lines["voc5i-mini"][0][1][4].status == "not run"


@pytest.mark.parametrize(
    ("attention", "recipe", "beside"),
    [
        ("SupervisedAttention", "voc5i_mini_sdaanet_separate", True),
        ("NoAttention", "voc5i_mini_sdaanet_separate", False),
        ("NoAttention", "a recipe of its own", True),
    ],
)
def test_a_result_without_a_part_of_its_recipe_does_not_stand_beside_the_papers_number(
    attention, recipe, beside, write, tmp_path
):
    config = {"method": {"type": "SDAANetConfig", "attention": {"type": attention}}}
    made = {"method": "sdaanet", "shots": 5, "variant": "sdaanet_separate", "recipe": recipe}
    write("one", config=config, **made)
    (row,) = load_results(tmp_path / "results").frame.itertuples()
    assert (row.row, row.published) == (("Separate Strategy", 64.4) if beside else ("", None))


def test_a_gain_is_over_the_baseline_of_the_same_training_seed_alone(write, tmp_path):
    seeds = [{"seed": 0}, {"seed": 1}]
    for fold in range(4):
        write(f"pfenet{fold}", fold, training=seeds[0])
        write(f"scl{fold}", fold, better=0.05, training=seeds[1], **SCL)
    row = row_of(tables_of(tmp_path / "results")["scl", "1"], "ours-SCL (PFENet)")
    assert {cell.gain_status for cell in row.lines["voc5i-mini"][0][1]} == {
        "baseline of another protocol or training seed"
    }


def test_two_recipes_of_one_row_are_two_lines(write, tmp_path):
    write("short", 0)
    write("long", 1, recipe="voc5i_mini_pfenet_long", variant="pfenet")
    lines = row_of(tables_of(tmp_path / "results")["scl", "1"], "PFENet (TPAMI'20)").lines["voc5i-mini"]
    assert sorted(cells[i].row.first.recipe for i, (_, cells) in enumerate(lines)) == [
        "voc5i_mini_pfenet",
        "voc5i_mini_pfenet_long",
    ]
    assert [difference for difference, _ in lines] == ["", "no. 2"]


def test_a_gain_is_over_the_baseline_of_the_same_input_size(write, tmp_path):
    """A worse baseline at a smaller size comes first by name, and is not what a row is set beside."""
    sizes = [{"method": {"type": "PFENet"}, "size": size} for size in (161, 241)]
    for fold in range(4):
        write(f"small{fold}", fold, better=-0.3, config=sizes[0])
        write(f"scl{fold}", fold, better=0.05, config=sizes[1], **SCL)

    def gain():
        row = row_of(tables_of(tmp_path / "results")["scl", "1"], "ours-SCL (PFENet)")
        return row.lines["voc5i-mini"][0][1][4]

    assert (gain().gain, gain().gain_status) == (None, "baseline at another input size")
    for fold in range(4):
        write(f"large{fold}", fold, config=sizes[1])
    assert gain().gain.value < 0.1


def test_scales_of_one_pass_are_set_beside_the_same_input_and_two_inputs_beside_nothing(write, tmp_path):
    scales = [("one", 0.0, (241,), ()), ("small", -0.3, (161,), ()), ("large", -0.3, (353,), ())]
    scales += [("many", 0.05, (241,), (241, 353)), ("inputs", 0.2, (241, 353), ())]
    for fold, (name, better, sizes, output_sizes) in product(range(4), scales):
        sides = {"sizes": sizes, "output_sizes": output_sizes}
        write(f"{name}{fold}", fold, better, method="sdaanet", recipe="voc5i_mini_sdaanet", **sides)
    table = tables_of(tmp_path / "results")["sd-aanet", "4"]
    (line,) = row_of(table, "Multi-scale Inference").lines["voc5i-mini"]
    assert line[1][4].row.first.sizes == "241, logits at 241 + 353"
    assert 0 < line[1][4].gain.value < 0.1
