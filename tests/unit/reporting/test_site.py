"""The page over a folder of results: whole, safe, silent, and true to the results."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from fewseg.cli import main
from fewseg.engine.counts_file import counts_path
from fewseg.engine.result_seal import without_seal
from fewseg.metrics import paired_difference
from fewseg.metrics.by_size import miou_by_size
from fewseg.reporting.results_page import read_folder
from fewseg.reporting.site.build import write_site

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 20
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


class Page(HTMLParser):
    """Collects elements with their text, and checks that each is closed in order."""

    VOID = ("meta", "img", "br", "input")

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        assert not self.open, f"never closed: {[e['tag'] for e in self.open]}"

    def handle_starttag(self, tag, attributes):
        parents = [*self.open]
        element = {"tag": tag, **dict(attributes), "text": "", "parents": parents}
        self.elements.append(element)
        if tag not in self.VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.elements.append({"tag": tag, **dict(attributes), "text": "", "parents": [*self.open]})

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag, **having):
        found = [e for e in self.elements if e["tag"] == tag]
        return [e for e in found if all(e.get(k) == v for k, v in having.items())]

    def downloads(self):
        """Name of each file that the page holds to its rows."""
        files = {}
        for link in self.all("a"):
            if "download" in link:
                start, content = link["href"].split(",", 1)
                assert start == "data:text/csv;base64"
                text = base64.b64decode(content).decode()
                files[link["download"]] = list(csv.DictReader(io.StringIO(text)))
        return files


@pytest.fixture
def folder(write):
    """Two methods on four folds, one of them with a fifth, unfinished row."""
    for fold in range(4):
        write(f"pfenet-{fold}", fold, training={"checkpoint": f"p{fold}", "seed": 0})
        write(f"scl-{fold}", fold, better=0.03, method="scl-pfenet", recipe=f"voc5i_mini_scl_fold{fold}")
    return write("late", 2, better=0.01, method="panet", recipe="voc5i_mini_panet").parent


@pytest.fixture
def make(tmp_path):
    def made(folder, **options):
        site = write_site(folder, tmp_path / "out" / "site.html", **options)
        text = site.path.read_text()
        assert site.size == len(text.encode())
        return site, text, Page(text)

    return made


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


def axis_of(page, section_label):
    """From a place in a chart to the value there, by two of its ticks."""
    (chart,) = [e for e in page.all("svg") if (e.get("aria-label") or "").startswith(section_label)]
    ticks = [e for e in page.all("text") if chart in e["parents"] and e.get("class") == "tick"]
    (first, second), (left, right) = ticks[0:3:2], (ticks[0], ticks[2])
    slope = (float(right["text"]) - float(left["text"])) / (float(right["x"]) - float(left["x"]))
    assert first is left
    assert second is right
    return chart, lambda x: float(left["text"]) + slope * (float(x) - float(left["x"]))


def dots_of(page, label):
    """(value in full, value at the mark's place, ends of the interval) by title."""
    chart, value_at = axis_of(page, label)
    found = {}
    for group in page.all("g"):
        if chart in group["parents"] and "data-value" in group:
            (shape,) = [e for e in page.all("path") if group in e["parents"]]
            (interval,) = [e for e in page.all("line") if group in e["parents"]]
            x = re.fullmatch(r"translate\((\S+) \S+\)", shape["transform"])[1]
            found[group["text"]] = (
                float(group["data-value"]),
                value_at(x),
                value_at(interval["x1"]),
                value_at(interval["x2"]),
            )
    return found


def test_every_dot_stands_at_its_result(folder, make):
    _, _, page = make(folder)
    dots = dots_of(page, "voc5i-mini, 1-shot: mIoU of each row")
    results = read_folder(folder).found
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
    found = read_folder(folder).found
    for fold in range(4):
        (a, counts_a), (_, counts_b) = of_row(found, "pfenet", fold), of_row(found, "scl-pfenet", fold)
        paired = paired_difference(counts_a, counts_b, a.classes)
        ((_, values),) = [(k, v) for k, v in dots.items() if f", fold {fold}:" in k]
        assert values[0] == paired.difference
        wanted = [100 * v for v in (paired.difference, paired.interval.low, paired.interval.high)]
        assert values[1:] == pytest.approx(wanted, abs=0.02)
    assert len(dots) == 5


def test_the_heat_map_and_its_file_have_the_iou_of_each_class(folder, make):
    _, _, page = make(folder)
    found = read_folder(folder).found
    heat = [e for e in page.all("span", **{"class": "heat"}) if [p for p in e["parents"] if p["tag"] == "td"]]
    wanted = {}
    for result, _ in found:
        for c, iou in result.per_class_mean.items():
            wanted[result.method, result.fold, result.class_names[c]] = iou
    assert sorted(float(e["data-value"]) for e in heat) == sorted(wanted.values())
    assert all(e["text"] == f"{100 * float(e['data-value']):.1f}" for e in heat)
    rows = page.downloads()["voc5i-mini-1-shot-classes.csv"]
    assert {(r["method"], int(r["fold"]), r["name"]): float(r["iou"]) for r in rows} == wanted
    (table,) = [e for e in page.all("table") if "foreground IoU of each tested class" in e["text"]]
    (panet,) = [e for e in page.all("tr") if table in e["parents"] and e["text"].startswith("panet")]
    cells = [e["text"] for e in page.all("td") if panet in e["parents"]]
    assert [cell == "-" for cell in cells] == [True] * 4 + [False] * 2 + [True] * 2


def test_sizes_are_those_of_the_counts(folder, make):
    _, _, page = make(folder)
    rows = page.downloads()["voc5i-mini-1-shot-sizes.csv"]
    result, counts = of_row(read_folder(folder).found, "scl-pfenet", 2)
    mine = [r for r in rows if (r["method"], r["fold"]) == ("scl-pfenet", "2")]
    for row, bin in zip(mine, miou_by_size(counts, result.classes), strict=True):
        assert (int(row["pixels_from"]), int(row["episodes"])) == (bin.low, bin.episodes)
        assert row["miou"] == ("" if bin.miou is None else repr(bin.miou))
        assert bin.miou is None or float(row["low"]) <= bin.miou <= float(row["high"])
    bins = {}
    for row in rows:
        bins.setdefault((row["method"], row["pixels_from"]), []).append(row["miou"])
    whiskers = page.all("line", **{"class": "curve whisker s0"})
    assert len(whiskers) == sum(all(scores) for scores in bins.values()) > 0
    panels = page.all("figure", **{"class": "panel"})
    assert [e["text"].split(" mean")[0] for e in panels] == ["panet", "pfenet", "scl-pfenet"]


def test_the_score_file_has_every_result_in_full(folder, make):
    _, _, page = make(folder)
    rows = page.downloads()["voc5i-mini-1-shot-scores.csv"]
    wanted = {
        (r.method, str(r.fold)): (r.miou_mean, *r.miou_ci95, r.fb_iou_mean, r.dice_mean)
        for r, _ in read_folder(folder).found
    }
    names = ("miou", "miou_low", "miou_high", "fb_iou", "dice")
    assert {(r["method"], r["fold"]): tuple(float(r[n]) for n in names) for r in rows} == wanted


def test_every_result_file_is_in_the_page(folder, make):
    _, _, page = make(folder)
    shown = [json.loads(e["text"]) for e in page.all("pre")]
    for path in folder.glob("*.json"):
        assert without_seal(json.loads(path.read_text())) in shown


def test_missing_folds_and_broken_files_are_named_on_the_page(folder, make):
    newer = json.loads((folder / "pfenet-0.json").read_text()) | {"schema": 99}
    (folder / "pfenet-0.json").write_text(json.dumps(newer))
    edited = json.loads((folder / "pfenet-1.json").read_text())
    edited["seeds"][0]["miou"] = 0.9
    (folder / "pfenet-1.json").write_text(json.dumps(edited))
    counts_path(folder / "pfenet-2.json").unlink()
    site, _, page = make(folder)
    (missing,) = page.all("aside")
    told = [e["text"] for e in page.all("li") if missing in e["parents"]]
    assert tuple(told) == site.problems
    for words in ("pfenet-0.json has schema 99", "pfenet-1.json does not follow", "pfenet-2.counts.npz"):
        assert any(words in line for line in told)
    assert "voc5i-mini, 1-shot: pfenet mean: missing folds 0, 1, 2, so it has no mean" in told
    assert site.results == 6


def test_other_protocols_stand_apart_and_what_cannot_share_a_table_stays_out(folder, write, make):
    write("other", 0, protocol={"name": "other", "label_size": "original"}, method="canet")
    write("again", 1, training={"checkpoint": "p9", "seed": 0}, better=0.1)
    site, _, page = make(folder)
    ids = [e["id"] for e in page.all("section") if e.get("id", "").startswith("voc5i")]
    assert len(ids) == 2
    assert any("results of 2 protocols" in line for line in site.problems)
    assert any("again.json" in line and "pfenet-1.json" in line for line in site.problems)
    assert site.results == 8 + 1


def test_another_class_split_is_named_and_left_out(folder, write, make, counts_of_fold, result_of):
    counts = counts_of_fold(0)
    counts = replace(counts, class_id=counts.class_id + 4)
    result_of(counts, 0, classes=[5, 6], method="canet").save(folder / "odd.json", counts)
    site, _, _ = make(folder)
    assert any("different class splits" in line and "odd.json" in line for line in site.problems)
    assert site.results == 9


def test_pairs_of_other_episodes_are_named_and_the_rest_is_made(folder, write, make):
    write("scl-1", 1, drawn_from=5, method="scl-pfenet", recipe="voc5i_mini_scl_fold1")
    site, _, page = make(folder)
    assert any("no gain of scl-pfenet mean over pfenet mean" in line for line in site.problems)
    assert page.downloads()["voc5i-mini-1-shot-scores.csv"]


def test_a_folder_without_results_makes_a_page_that_says_so(tmp_path, make):
    (tmp_path / "none").mkdir()
    site, _, page = make(tmp_path / "none")
    assert site.results == 0
    assert "no result that can be read" in site.problems[0]
    assert page.all("section", id="papers")
    assert "There is no result" in page.all("p")[0]["text"]


def test_a_missing_folder_is_an_error_and_leaves_the_earlier_page(tmp_path):
    out = tmp_path / "site.html"
    out.write_text("earlier")
    with pytest.raises(ValueError, match="is not a folder"):
        write_site(tmp_path / "none", out)
    assert out.read_text() == "earlier"


def test_a_row_of_every_paper_table_is_there(folder, make):
    _, _, page = make(folder)
    slugs = [e["id"] for e in page.all("section", **{"class": "paper-table"})]
    assert len(slugs) == 15
    assert slugs[0] == "scl-table-1"


def test_figures_are_embedded_as_they_are(folder, make, tmp_path):
    figures = tmp_path / "figures"
    (figures / "deep").mkdir(parents=True)
    (figures / "deep" / "tsne_fold0.svg").write_bytes(SVG)
    (figures / "grid.png").write_bytes(PNG + b"x" * 500)
    (figures / "grid.svg").write_bytes(SVG)
    (figures / "fake.png").write_bytes(b"GIF89a")
    (figures / "large.png").write_bytes(PNG + b"x" * (2 * 2**20))
    site, _, page = make(folder, figures=figures)
    shown = {e["alt"]: e["src"] for e in page.all("img")}
    svg = "data:image/svg+xml;base64," + base64.b64encode(SVG).decode()
    assert shown == {"Figure: deep/tsne fold0": svg, "Figure: grid": svg}, "of two, the smaller"
    assert any(line.startswith("fake.png: it is no PNG") for line in site.problems)
    assert any(line.startswith("large.png: it has 2.0 MiB") for line in site.problems)


def test_missing_folders_of_runs_and_figures_are_named(folder, make, tmp_path):
    site, _, page = make(folder, runs=tmp_path / "no-runs", figures=tmp_path / "no-figures")
    assert any("no-runs is not a folder" in line for line in site.problems)
    assert any("no-figures is not a folder" in line for line in site.problems)
    assert not page.all("section", id="learning")


def test_the_command_says_what_it_wrote_and_what_is_missing(folder, tmp_path, capsys):
    out = tmp_path / "my.html"
    assert main(["report", "site", str(folder), "--out", str(out), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "missing: voc5i-mini, 1-shot: panet mean: missing folds 0, 1, 3, so it has no mean" in said
    assert f"written: {out} (9 results," in said
    assert main(["report", "site", str(tmp_path / "none"), "--quiet"]) == 1


def test_the_same_results_make_the_same_page(folder, make):
    assert make(folder)[1] == make(folder)[1]
