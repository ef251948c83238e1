import csv

import pytest

from fewseg.cli import main


@pytest.fixture
def reported(capsys):
    """(words) -> exit status, what was printed and what was complained of, white space joined."""

    def run(*words):
        status = main(["report", "tables", *map(str, words)])
        captured = capsys.readouterr()
        return status, " ".join(captured.out.split()), " ".join(captured.err.split())

    return run


def test_an_empty_folder_gives_the_printed_values_and_says_that_nothing_was_run(reported, tmp_path):
    status, out, _ = reported(tmp_path, "--paper", "scl", "--table", "4")
    assert status == 0
    assert "55.4" in out
    assert "not run" in out
    assert "has no result that can be read: every row of ours says 'not run'" in out
    assert "Table 5" not in out


def test_a_missing_folder_is_an_error(reported, tmp_path):
    status, _, err = reported(tmp_path / "nowhere")
    assert status == 1
    assert "nowhere is not a folder: give the folder that `fewseg evaluate` writes to" in err


def test_files_of_every_format_are_written(reported, tmp_path):
    out = tmp_path / "out"
    status, output, _ = reported(tmp_path, "--paper", "srpnet", "sdaanet", "--table", "2", "IV", "--out", out)
    assert status == 0
    names = ["sd-aanet-table-2", "sd-aanet-table-4", "srpnet-table-2", "srpnet-table-4"]
    assert sorted(p.name for p in out.iterdir()) == sorted(
        [f"{n}.{end}" for n in names for end in ("md", "tex")] + ["tables.csv", "tables.html"]
    )
    assert f"written: {out / 'tables.html'}" in output
    with (out / "tables.csv").open() as file:
        assert {line["paper"] for line in csv.DictReader(file)} == {"srpnet", "sd-aanet"}


def test_one_format_goes_to_the_terminal_as_it_is(reported, tmp_path):
    status, out, _ = reported(tmp_path, "--paper", "sdaanet", "--table", "V", "--format", "latex")
    assert status == 0
    assert out.startswith(r"% needs \usepackage{booktabs,graphicx} \begin{table*}")
    assert out.endswith(r"\end{table*}")


def test_a_table_that_no_paper_has_is_reported(reported, tmp_path):
    status, _, err = reported(tmp_path, "--paper", "srpnet", "--table", "5")
    assert status == 1
    assert "no table 5 in srpnet: SCL has 1 to 6, SRPNet 1 to 4, SD-AANet I to V" in err


@pytest.mark.parametrize("form", ["markdown", "latex", "html"])
def test_what_was_left_out_stands_in_the_files_too(reported, tmp_path, form):
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "bad.counts.npz").write_bytes(b"")
    out = tmp_path / "out"
    words = (tmp_path, "--paper", "scl", "--table", "6")
    status, shown, err = reported(*words, "--format", form, "--out", out)
    assert status == 3
    assert (shown + err).count("bad.json is not a whole JSON file") == 1
    (path,) = out.iterdir()
    assert "left out: bad.json is not a whole JSON file" in path.read_text()
    assert "55.6" in path.read_text()
