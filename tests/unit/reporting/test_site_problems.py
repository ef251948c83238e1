"""The page over a folder of results: what it says of what is damaged, missing or does not fit."""

import base64
import json

import pytest

from fewseg.cli import main
from fewseg.engine.results import counts_path
from fewseg.reports.options import SiteOptions
from fewseg.reports.site.build import write_site
from site_page import PNG, SVG


def test_missing_folds_and_broken_files_are_named_on_the_page(folder, make):
    newer = json.loads((folder / "pfenet-0.json").read_text()) | {"schema": 99}
    (folder / "pfenet-0.json").write_text(json.dumps(newer))
    edited = json.loads((folder / "pfenet-1.json").read_text())
    edited["seeds"][0]["miou"] = 0.9
    (folder / "pfenet-1.json").write_text(json.dumps(edited))
    counts_path(folder / "pfenet-2.json").unlink()
    site, _, page = make(folder)
    (missing,) = page.all("aside")
    reported = [e["text"] for e in page.all("li") if missing in e["parents"]]
    assert tuple(reported) == site.problems
    for words in ("pfenet-0.json has schema 99", "pfenet-1.json does not follow", "pfenet-2.counts.npz"):
        assert any(words in line for line in reported)
    assert "voc5i-mini, 1-shot: pfenet mean: missing folds 0, 1, 2, so it has no mean" in reported
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


def test_pairs_of_other_episodes_are_named_and_the_rest_is_made(folder, write, make):
    write("scl-1", 1, drawn_from=5, method="scl-pfenet", recipe="voc5i_mini_scl")
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
        write_site(SiteOptions(folder=tmp_path / "none", out=out))
    assert out.read_text() == "earlier"


def test_figures_are_embedded_as_they_are(folder, make, tmp_path):
    figures = tmp_path / "figures"
    (figures / "deep").mkdir(parents=True)
    (figures / "deep" / "tsne_fold0.svg").write_bytes(SVG)
    (figures / "grid.png").write_bytes(PNG)
    (figures / "grid.svg").write_bytes(SVG + b" " * 500)
    (figures / "fake.png").write_bytes(b"GIF89a")
    (figures / "large.png").write_bytes(PNG + b"x" * (2 * 2**20))
    site, _, page = make(folder, figures=figures)
    shown = {e["alt"]: e["src"] for e in page.all("img")}
    svgs = [base64.b64encode(svg).decode() for svg in (SVG, SVG + b" " * 500)]
    uris = [f"data:image/svg+xml;base64,{svg}" for svg in svgs]
    assert list(shown.values()) == uris, "of two, the one in lines"
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
    output = capsys.readouterr().out
    assert "missing: voc5i-mini, 1-shot: panet mean: missing folds 0, 1, 3, so it has no mean" in output
    assert f"written: {out} (9 results," in output
    assert main(["report", "site", str(tmp_path / "none"), "--quiet"]) == 1


def test_the_command_names_a_damaged_file_once_and_its_status_says_so(folder, tmp_path, capsys):
    (folder / "pfenet-1.json").write_text("{")
    assert main(["report", "site", str(folder), "--out", str(tmp_path / "my.html"), "--quiet"]) == 3
    reported = capsys.readouterr()
    assert (
        " ".join((reported.out + reported.err).split()).count("pfenet-1.json is not a whole JSON file") == 1
    )
