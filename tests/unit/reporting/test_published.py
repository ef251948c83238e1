import os
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from fewseg.recipes.registry import recipe, variants
from fewseg.reports.published import printed_as, published_values
from result_files import make_counts, make_result

RESULT = replace(make_result(make_counts()), recipe="")


def paper_mean(dataset, method, fusion, shots, name="", on="query", **options):
    """The printed mean for a result of a recipe, or of a method without parts."""
    variant = recipe(name).variant.name if name else method.replace("-", "_")
    task = {"dataset": dataset, "fusion": fusion, "shots": shots, "on": on, "variant": variant}
    return printed_as(replace(RESULT, **task, **options))[1]


VALUES = {(v.paper, v.table, v.row, v.shots, v.column): v for v in published_values()}


def value(table, row, shots, column="mean", paper="scl"):
    return VALUES[paper, table, row, shots, column].percent


def test_values_are_those_of_the_papers_at_places_read_by_hand():
    assert value("1", "SCL (PFENet)", 1) == 61.8
    assert value("1", "PFENet", 1, "fold2") == 55.4
    assert value("4", "average", 5) == 55.9
    assert value("4", "CGM", 5) == 56.9
    assert value("4", "SGM + CGM", 5, "fb_iou") == 70.7
    assert value("5", "v_aux", 1) == 51.4
    assert value("5", "v_s + v_pri + v_aux", 1, "fb_iou") == 69.9
    assert value("6", "L_ce^s2", 1) == 56.8
    assert value("3", "SRPNet", 1, "dice", paper="srpnet") == 76.2
    assert value("2", "CRNet", 5, paper="srpnet") == 55.8  # SCL and SD-AANet print 58.8
    assert value("1", "F + SRP (sup)", 1, "fold1", paper="srpnet") == 86.1
    assert value("5", "Integral Strategy", 5, "fold3", paper="sd-aanet") == 58.8


def test_the_tables_are_complete_and_no_value_is_given_twice():
    assert len(VALUES) == len(published_values())
    scl = {"1": 12 * 10 + 2, "2": 4 * 10 + 2, "3": 7, "4": 12, "5": 10, "6": 6}
    srpnet = {"1": 7 * 5, "2": 10 * 10 + 2, "3": 7 * 10, "4": 6 * 2}
    sdaanet = {"1": 17 * 10 + 2, "2": 9 * 10 + 4 * 2, "3": 4 * 5, "4": 2 * 5, "5": 2 * 5}
    papers = {"scl": scl, "srpnet": srpnet, "sd-aanet": sdaanet}
    assert Counter((v.paper, v.table) for v in published_values()) == {
        (paper, table): number for paper, tables in papers.items() for table, number in tables.items()
    }


def test_printed_standard_deviations_are_kept():
    def std(table, shots, column):
        return VALUES["srpnet", table, "SRPNet", shots, column].std

    assert std("2", 1, "fold0") == 0.16
    assert std("2", 5, "mean") == 0.11
    assert std("3", 1, "dice") == 0.24
    assert std("3", 5, "dice_fold3") == 0.10
    with_std = {(v.paper, v.table, v.row) for v in published_values() if v.std is not None}
    assert with_std == {("srpnet", "2", "SRPNet"), ("srpnet", "3", "SRPNet")}


def test_the_rows_that_variants_name_are_printed():
    for variant in variants().values():
        for row in variant.printed:
            assert row.table or row.coco_table
            for table in {row.table, row.coco_table} - {""}:
                for shots in row.shots or (1,):
                    assert (row.paper, table, row.row, shots, "mean") in VALUES


# lines whose printed folds do not give the printed mean, digit by digit as the papers print them
MISPRINTS = {
    ("scl", "1", "RPMMs", 1): (55.2, 65.9, 52.6, 50.7, 56.3),
    ("scl", "1", "PFENet", 1): (61.7, 69.5, 55.4, 56.3, 60.8),
    ("scl", "2", "FWB", 1): (19.9, 18.0, 21.0, 28.9, 21.2),
    ("srpnet", "2", "PFENet", 1): (61.7, 69.5, 55.4, 56.3, 60.8),
    ("srpnet", "3", "CANet", 1): (68.9, 79.4, 67.8, 68.3, 71.2),
    ("srpnet", "3", "PFENet", 5): (77.4, 82.8, 71.6, 73.3, 76.2),
    ("srpnet", "3", "SRPNet", 1): (77.2, 81.9, 71.6, 73.5, 76.2),
    ("srpnet", "3", "SRPNet", 5): (78.3, 82.6, 71.1, 75.4, 77.0),
    ("sd-aanet", "1", "RPMMs", 1): (55.2, 65.9, 52.6, 50.7, 56.3),
    ("sd-aanet", "1", "PFENet", 1): (61.7, 69.5, 55.4, 56.3, 60.8),
    ("sd-aanet", "2", "FWB", 1): (19.9, 18.0, 21.0, 28.9, 21.2),
}


def test_the_means_are_those_of_the_folds_beside_them():
    folds, means = defaultdict(list), {}
    for v in published_values():
        key = (v.paper, v.table, v.row, v.shots)
        if "fold" in v.column:
            folds[key].append(v.percent)
        elif v.column in ("mean", "dice"):
            means[key] = v.percent
    assert len(folds) == 133
    for key, values in folds.items():
        assert len(values) == 4
        if key not in MISPRINTS:
            assert sum(values) / 4 == pytest.approx(means[key], abs=0.0501), key
    assert {key: (*folds[key], means[key]) for key in MISPRINTS} == MISPRINTS


SHARED = Path(os.environ.get("FEWSEG_SHARED", Path(__file__).parents[3] / ".." / "shared"))
PAPERS = SHARED / "papers"
needs_papers = pytest.mark.skipif(
    not (PAPERS / "scl.txt").exists(), reason="the texts of the papers are not at $FEWSEG_SHARED"
)


def printed(value):
    return f"{value.percent:.1f}" + (f"±{value.std:.2f}" if value.std is not None else "")


def lines_of(paper, tables, columns, shots):
    """(table, row, backbone) -> the texts of a row in the order of the paper, "-" where it has none."""
    rows = defaultdict(dict)
    for v in published_values():
        if v.paper == paper and v.table in tables:
            rows[v.table, v.row, v.backbone][v.shots, v.column] = printed(v)
    places = [(k, column) for k in shots for column in columns]
    return {key: tuple(found.get(place, "-") for place in places) for key, found in rows.items()}


FOLDS = ("fold0", "fold1", "fold2", "fold3", "mean")


@needs_papers
def test_every_line_of_srpnets_table_1_is_in_the_papers_text():
    text = (PAPERS / "srpnet.txt").read_text().replace("F+SRP (sup)", "F + SRP (sup)").splitlines()
    found = lines_of("srpnet", "1", FOLDS, (1,))
    assert len(found) == 7
    for (_, row, _), values in found.items():
        assert " ".join([row, *values]) in text


@needs_papers
@pytest.mark.parametrize(
    ("table", "begin", "end"),
    [
        ("2", " Table 2: mean-IoU", "respect to the random seed"),
        ("3", " Table 3: Dice", "16-24)"),
        ("4", " Table 4: mean-IoU", "posed Self-Reg"),
    ],
)
def test_the_numbers_of_srpnets_tables_are_those_of_the_papers_text_in_its_order(table, begin, end):
    part = (PAPERS / "srpnet.txt").read_text().split(begin, 1)[1].split(end, 1)[0]
    values = [v for v in published_values() if (v.paper, v.table) == ("srpnet", table)]
    if table != "4":
        values.sort(key=lambda v: v.shots)  # printed one below the other
    assert [printed(v) for v in values] == re.findall(r"(?<![\d.])\d\d\.\d(?:±\d\.\d\d)?(?![\d.])", part)


@needs_papers
def test_every_line_of_scls_large_tables_is_in_the_papers_text():
    lines = set()
    for line in (PAPERS / "scl.txt").read_text().splitlines():
        found = re.search(r"(vgg16|resnet\d+) ((?:[\d.-]+ ?)+)$", line)
        if found:
            lines.add((found[1], *found[2].split()))
    rows = lines_of("scl", "12", FOLDS, (1, 5)) | lines_of("scl", "3", ("fb_iou",), (1, 5))
    assert len(rows) == 13 + 5 + 4
    for (_, _, backbone), values in rows.items():
        assert (backbone, *values) in lines


@needs_papers
def test_every_line_of_sd_aanets_tables_is_in_the_papers_text():
    text = (PAPERS / "sd-aanet.txt").read_text()
    lines = set()
    for line in (
        text.replace("VGG-16", "vgg16").replace("ResNet", "resnet").replace("(ours)", "").splitlines()
    ):
        found = re.fullmatch(r"(.+?)(†?)(?: \[\d+\])?( vgg16| resnet\d+)?((?: (?:\d\d\.\d|-))+)", line)
        if found:
            row, dagger, backbone, values = found.groups()
            lines.add((row + " (473)" * bool(dagger), (backbone or "").strip(), *values.split()))
    rows = lines_of("sd-aanet", "12", FOLDS, (1, 5)) | lines_of("sd-aanet", "34", FOLDS, (1,))
    rows |= lines_of("sd-aanet", "5", FOLDS, (5,))
    assert len(rows) == 18 + 13 + 4 + 2 + 2
    for (table, row, backbone), values in rows.items():
        assert (row, backbone if table in "12" else "", *values) in lines


@pytest.mark.parametrize(
    ("row", "percent"),
    [
        (("pascal-5i", "scl-pfenet", "average", 1), 61.8),
        (("voc5i-mini", "scl-pfenet", "cross-guided", 5), 62.9),
        (("coco-20i", "scl-pfenet", "mean", 1), 37.0),
        (("pascal-5i", "srpnet", "mean", 1, "pascal_srpnet_cos_resnet50"), 53.6),
        (("voc5i-mini", "srpnet", "iterative", 1, "voc5i_mini_srpnet_f"), 58.0),
        (("voc5i-mini", "srpnet", "iterative", 5, "voc5i_mini_srpnet"), 62.6),
        (("voc5i-mini", "srpnet", "mean", 1, "voc5i_mini_srpnet", "support"), 80.2),
        (("pascal-5i", "panet", "mean", 5, "pascal_panet_vgg16"), 55.7),
        (("pascal-5i", "canet", "attention", 5, "pascal_canet_attention_resnet50"), 57.1),
        (("pascal-5i", "scl-canet", "cross-guided", 5, "pascal_scl_canet_resnet50"), 59.2),
        (("pascal-5i", "scl-canet", "average", 1, "pascal_scl_canet_auxiliary_resnet50"), 51.4),
        (("voc5i-mini", "pfenet", "mean", 1, "voc5i_mini_sdaanet_baseline"), 60.4),
        (("coco-20i", "pfenet", "mean", 5, "coco_sdaanet_baseline_473_resnet101"), 45.0),
        (("coco-20i", "pfenet", "mean", 5, "coco_pfenet_resnet101"), 37.4),
        (("voc5i-mini", "sdaanet", "mean", 1, "voc5i_mini_sdaanet_saam"), 60.8),
        (("coco-20i", "sdaanet", "mean", 1, "coco_sdaanet_473_resnet101"), 39.6),
        (("voc5i-mini", "sdaanet", "mean", 5, "voc5i_mini_sdaanet_integral"), 63.9),
        (("coco-20i", "sdaanet", "mean", 5, "coco_sdaanet_separate_473_resnet101"), 47.4),
    ],
)
def test_the_papers_mean_for_a_row_of_ours(row, percent):
    found = paper_mean(*row)
    assert found.percent == percent
    assert found.dataset == ("coco-20i" if row[0] == "coco-20i" else "pascal-5i")


@pytest.mark.parametrize(
    "row",
    [
        ("pascal-5i", "scl-pfenet", "average", 5),
        ("pascal-5i", "pfenet", "cross-guided", 5),
        ("pascal-5i", "matcher", "mean", 1),
        ("pascal-5i", "scl-pfenet", "cross-guided", 3),
        ("pascal-5i", "srpnet", "iterative", 1, "pascal_srpnet_resnet50", "support"),
        ("pascal-5i", "panet", "iterative", 1, "pascal_panet_vgg16"),
        ("pascal-5i", "canet", "attention", 1, "pascal_canet_attention_resnet50"),
        ("coco-20i", "canet", "average", 1, "pascal_canet_resnet50"),
        ("pascal-5i", "scl-canet", "cross-guided", 5, "pascal_scl_canet_primary_resnet50"),
        ("voc5i-mini", "pfenet", "average", 5, "voc5i_mini_sdaanet_baseline"),
        ("voc5i-mini", "sdaanet", "mean", 5, "voc5i_mini_sdaanet"),
        ("voc5i-mini", "sdaanet", "mean", 1, "voc5i_mini_sdaanet_separate"),
    ],
)
def test_rows_that_no_paper_has_have_no_value(row):
    assert paper_mean(*row) is None


def test_the_resized_logits_of_one_pass_have_the_second_value_of_sd_aanets_table_4_and_no_other():
    def mean(dataset, name, *sizes, method="sdaanet", inputs=()):
        found = paper_mean(dataset, method, "mean", 1, name, sizes=inputs, output_sizes=sizes)
        return found and (found.table, found.row, found.percent)

    multi = ("4", "Multi-scale Inference", 62.2)
    assert mean("pascal-5i", "pascal_sdaanet_resnet50", 321, 473) == multi
    assert mean("pascal-5i", "pascal_sdaanet_resnet50", 473, 321) == multi
    assert mean("voc5i-mini", "voc5i_mini_sdaanet", 241, 353) == multi
    assert mean("pascal-5i", "pascal_sdaanet_resnet50", 321, 473, inputs=(321,)) == multi
    assert mean("pascal-5i", "pascal_sdaanet_resnet50", inputs=(321,))[1:] == ("SD-AANet", 61.9)
    assert mean("pascal-5i", "pascal_sdaanet_resnet50", inputs=(321, 473)) is None
    assert mean("voc5i-mini", "voc5i_mini_sdaanet", inputs=(241, 353)) is None
    assert mean("pascal-5i", "pascal_sdaanet_resnet50", 321, 417) is None
    assert mean("coco-20i", "coco_sdaanet_resnet101", 321, 473) is None
    assert mean("pascal-5i", "pascal_sdaanet_saam_resnet50", 321, 473) is None
    assert mean("pascal-5i", "pascal_sdaanet_baseline_resnet50", 321, 473, method="pfenet") is None
    assert mean("voc5i-mini", "voc5i_mini_pfenet", 241, 353, method="pfenet") is None
