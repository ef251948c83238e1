"""The page over a folder of results: whole, safe, silent, and true to the results."""

import base64
import hashlib
import json
import re

import pytest

from fewseg.metrics import paired_difference
from fewseg.metrics.scores import miou_by_size
from fewseg.reports.frame import load_results
from site_page import SVG


def pairs_of(folder):
    """Each result with its counts."""
    found = load_results(folder)
    return [(run, found.counts[key]) for key, run in found.runs.items()]


def test_the_page_has_its_parts_and_every_link_leads_to_one(folder, make):
    _, _, page = make(folder)
    ids = [e["id"] for e in page.elements if "id" in e]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        if "download" not in link:
            assert link["href"].removeprefix("#") in ids
    sections = [e["id"] for e in page.all("section") if "paper-table" not in (e.get("class") or "")]
    assert sections == ["voc5i-mini-1-shot", "papers", "made"]
    for section in page.all("section"):
        if "aria-labelledby" in section:
            assert section["aria-labelledby"] in ids
    headings = [h["text"] for h in page.all("h3") if h["parents"][-1].get("id") == "voc5i-mini-1-shot"]
    wanted = ["Scores", "Fold by fold", "Paired gains", "Class by class", "By the size of the target"]
    assert headings == wanted
    assert page.all("a")[0]["class"] == "skip"


def test_tables_and_drawings_speak_to_screen_readers(folder, make):
    _, _, page = make(folder)
    assert all(cell.get("scope") in ("col", "row", "colgroup") for cell in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    for drawing in page.all("svg"):
        assert drawing.get("aria-hidden") == "true" or (drawing["role"] == "img" and drawing["aria-label"])
    for box in page.all("div"):
        if "scroll" in (box.get("class") or "").split():
            assert (box["tabindex"], box["role"]) == ("0", "region")
            assert box["aria-label"]


def test_the_page_asks_the_network_for_nothing_and_runs_one_script(folder, make, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "a.svg").write_bytes(SVG)
    _, text, page = make(folder, figures=tmp_path / "figures")
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv")]
    (script,) = page.all("script")
    digest = base64.b64encode(hashlib.sha256(script["text"].encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    for e in page.elements:
        for name in ("src", "href"):
            assert name not in e or e[name].startswith(("data:", "#"))
        assert not [name for name in e if name.startswith("on")]
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|https?://", text)


def test_names_of_results_are_escaped(write, make):
    evil = '<script>alert("1")</script>&'
    split = {"novel": [1, 2], "class_names": {"1": evil, "2": "bicycle"}}
    folder = write("x", method=evil, recipe=evil, class_split=split, config={"a": evil}).parent
    _, text, page = make(folder)
    assert len(page.all("script")) == 1
    assert evil not in text
    assert [json.loads(e["text"]).get("config") for e in page.all("pre")] == [None, {"a": evil}]
    assert any(evil in e["text"] for e in page.all("th"))


def of_row(found, method, fold):
    return next((r, c) for r, c in found if (r.method, r.fold) == (method, fold))


def dots_of(page, label):
    """(value in full, value at the mark's place, ends of the interval) by title."""
    (chart,) = [e for e in page.all("svg") if (e.get("aria-label") or "").startswith(label)]

    def inside(tag):
        return [e for e in page.all(tag) if any(parent is chart for parent in e["parents"])]

    ticks = {float(e["x"]): number_of(e["text"]) for e in inside("text")}
    ticks = {x: tick for x, tick in ticks.items() if tick is not None}
    left, right = min(ticks), max(ticks)
    slope = (ticks[right] - ticks[left]) / (right - left)
    found = {}
    for group in inside("g"):
        title = next((e["text"] for e in page.all("title") if e["parents"][-1] is group), None)
        if title is None:
            continue
        place, *values = found.get(title, [None, None, None, None])
        for e in inside("use"):
            if any(parent is group for parent in e["parents"]):
                place, values[0] = float(group["data-value"]), ticks[left] + slope * (float(e["x"]) - left)
        for e in inside("path"):
            if e["parents"][-1] is group:
                ends = re.fullmatch(r"M (\S+) \S+ L (\S+) \S+", e["d"]).groups()
                values[1:] = [ticks[left] + slope * (float(end) - left) for end in ends]
        found[title] = (place, *values)
    return found


def number_of(text):
    text = text.replace("−", "-")
    return float(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else None


def test_every_dot_stands_at_its_result(folder, make):
    _, _, page = make(folder)
    dots = dots_of(page, "voc5i-mini, 1-shot: mIoU of each row")
    results = pairs_of(folder)
    folds = {k: v for k, v in dots.items() if ", mean:" not in k}
    assert len(folds) == len(results) == 9
    for result, _ in results:
        ((title, values),) = [
            (k, v) for k, v in folds.items() if k.startswith(f"{result.method} mean, fold {result.fold}:")
        ]
        assert values[0] == result.miou_mean
        shown = [100 * v for v in (result.miou_mean, *result.miou_ci95)]
        assert values[1:] == pytest.approx(shown, abs=0.02)
        assert f"{shown[0]:.1f} [{shown[1]:.1f}, {shown[2]:.1f}]" in title
    means = {k: v for k, v in dots.items() if ", mean:" in k}
    assert sorted(k.split(",")[0] for k in means) == ["pfenet mean", "scl-pfenet mean"], "panet lacks folds"
    for method in ("pfenet", "scl-pfenet"):
        (mean,) = [v[0] for k, v in means.items() if k.startswith(f"{method} ")]
        assert mean == pytest.approx(sum(r.miou_mean for r, _ in results if r.method == method) / 4)


def test_every_gain_stands_at_the_paired_difference(folder, make):
    _, _, page = make(folder)
    dots = dots_of(page, "voc5i-mini, 1-shot: gains in mIoU")
    found = pairs_of(folder)
    for fold in range(4):
        (a, counts_a), (_, counts_b) = of_row(found, "pfenet", fold), of_row(found, "scl-pfenet", fold)
        paired = paired_difference(counts_a, counts_b, a.classes, over="queries")
        ((_, values),) = [(k, v) for k, v in dots.items() if f", fold {fold}:" in k]
        assert values[0] == paired.difference
        wanted = [100 * v for v in (paired.difference, paired.interval.low, paired.interval.high)]
        assert values[1:] == pytest.approx(wanted, abs=0.02)
    assert len(dots) == 5


def test_the_heat_map_and_its_file_have_the_iou_of_each_class(folder, make):
    _, _, page = make(folder)
    found = pairs_of(folder)
    heat = [e for e in page.all("span", **{"class": "heat"}) if [p for p in e["parents"] if p["tag"] == "td"]]
    wanted = {}
    for result, _ in found:
        for c, iou in result.per_class_mean.items():
            wanted[result.method, result.fold, result.class_names[c]] = iou
    assert sorted(float(e["data-value"]) for e in heat) == sorted(wanted.values())
    assert all(e["text"] == f"{100 * float(e['data-value']):.1f}" for e in heat)
    best = {}
    for (_, *column), iou in wanted.items():
        best[tuple(column)] = max(iou, best.get(tuple(column), 0.0))
    bold = [float(e["parents"][-1]["data-value"]) for e in page.all("b") if e["parents"][-1] in heat]
    assert sorted(bold) == sorted(best.values())
    rows = page.downloads()["voc5i-mini-1-shot-classes.csv"]
    assert {(r["method"], int(r["fold"]), r["name"]): float(r["iou"]) for r in rows} == wanted
    (table,) = [e for e in page.all("table") if "foreground IoU of each tested class" in e["text"]]
    (panet,) = [e for e in page.all("tr") if table in e["parents"] and e["text"].startswith("panet")]
    cells = [e["text"] for e in page.all("td") if panet in e["parents"]]
    assert [cell == "-" for cell in cells] == [True] * 4 + [False] * 2 + [True] * 2


def in_panel(element):
    return any(p.get("class") == "panel" for p in element["parents"])


def test_sizes_are_those_of_the_counts(folder, make):
    _, _, page = make(folder)
    rows = page.downloads()["voc5i-mini-1-shot-sizes.csv"]
    result, counts = of_row(pairs_of(folder), "scl-pfenet", 2)
    mine = [r for r in rows if (r["method"], r["fold"]) == ("scl-pfenet", "2")]
    for row, bin in zip(mine, miou_by_size(counts, result.classes), strict=True):
        assert (int(row["pixels_from"]), int(row["episodes"])) == (bin.low, bin.episodes)
        assert row["miou"] == ("" if bin.miou is None else repr(bin.miou))
        assert bin.miou is None or float(row["low"]) <= bin.miou <= float(row["high"])
    bins = {}
    for row in rows:
        bins.setdefault((row["method"], row["pixels_from"]), []).append(row["miou"])
    whole = {name: scores for name, scores in bins.items() if len(scores) == 4}
    points = sum(all(scores) for scores in whole.values())
    drawn = [g for g in page.all("g") if "data-value" in g and in_panel(g)]
    assert len(drawn) == points > 0
    panels = page.all("figure", **{"class": "panel"})
    assert [e["text"].split(" mean")[0] for e in panels] == ["pfenet", "scl-pfenet"]
    (pale,) = page.all("g", id="voc5i-mini-1-shot-all-sizes")
    assert len([e for e in page.all("path") if pale in e["parents"]]) == 2, "no mean over missing folds"
    reported = [e["text"] for e in page.all("p")]
    assert (
        "No curve, since there is no mean over missing folds: panet mean, missing folds 0, 1, 3." in reported
    )
    episodes = sum(int(r["episodes"]) for r in rows if (r["method"], r["pixels_from"]) == ("pfenet", "0"))
    assert any(f"Episodes behind a point: {episodes} of 0-499 pixels, " in line for line in reported)
    assert not any(", 0 of " in line for line in reported), "of sizes that were drawn alone"


def test_the_score_file_has_every_result_in_full(folder, make):
    _, _, page = make(folder)
    rows = page.downloads()["voc5i-mini-1-shot-scores.csv"]
    wanted = {
        (r.method, str(r.fold)): (r.miou_mean, *r.miou_ci95, r.fb_iou_mean, r.dice_mean, r.dice_of_miou_mean)
        for r, _ in pairs_of(folder)
    }
    names = ("miou", "miou_low", "miou_high", "fb_iou", "dice", "dice_of_miou")
    assert {(r["method"], r["fold"]): tuple(float(r[n]) for n in names) for r in rows} == wanted


def test_a_row_of_every_paper_table_is_there(folder, make):
    _, _, page = make(folder)
    slugs = [e["id"] for e in page.all("section", **{"class": "paper-table"})]
    assert len(slugs) == 15
    assert slugs[0] == "scl-table-1"


def test_the_same_results_make_the_same_page(folder, make):
    assert make(folder)[1] == make(folder)[1]
