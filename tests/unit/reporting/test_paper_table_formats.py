import csv
import io
import re

import pytest
from rich.console import Console

from fewseg.reports.frame import load_results, results_of
from fewseg.reports.paper_pages import _letter, csv_tables, page_of
from fewseg.reports.paper_report import rich_paper_table, texts
from fewseg.reports.papers import paper_tables
from fewseg.reports.templating import latex
from site_page import Page

SCL = {"method": "scl-pfenet", "fusion": "average", "recipe": "voc5i_mini_scl_&_<b>", "variant": "scl_pfenet"}


@pytest.fixture
def tables(write, tmp_path):
    """PFENet on all folds of the small set, SCL on all but fold 2, under a recipe's name full of signs."""
    for fold in range(4):
        write(f"pfenet{fold}", fold)
        if fold != 2:
            write(f"scl{fold}", fold, better=0.05, **SCL)
    return paper_tables(load_results(tmp_path / "results"))


def markdown_paper_table(table):
    return next(iter(texts("markdown", [table]).values()))


def latex_paper_table(table):
    return next(iter(texts("latex", [table]).values()))


def html_table(table):
    """The section of one table."""
    page = texts("html", [table])["tables.html"]
    return page[page.index("<section") : page.index("</section>") + len("</section>")]


def shown(table):
    return page_of(table).sections[0].rows


def cells(html):
    """(attributes, text) of each cell of an HTML table."""
    return [(e, e["text"]) for e in Page(html).elements if e["tag"] in ("td", "th")]


def test_html_has_the_printed_value_and_ours_in_blocks_that_say_whose_they_are(tables):
    found = cells(html_table(tables[0]))
    wide = [one for one in found if "few" not in one[0].get("class", "").split()]
    blocks = [text for named, text in wide if named.get("scope") == "colgroup"]
    assert blocks[:4] == [
        "",
        "printed, PASCAL-5i",
        "fewseg on PASCAL-5i",
        "fewseg on voc5i-mini, NOT the paper's data",
    ]
    spans = [int(named["colspan"]) for named, _ in wide if named.get("scope") == "colgroup"]
    assert spans[:4] == [2, 6, 1, 6]
    start = next(i for i, (_, text) in enumerate(found) if text == "PFENet (TPAMI'20)")
    row = found[start : start + 15]
    assert [text for _, text in row[2:9]] == ["61.7", "69.5", "55.4", "56.3", "60.8", "", "not run"]
    title = row[9][0]["title"]
    assert "printed 61.7 (PASCAL-5i, resnet50)" in title
    assert "on voc5i-mini (NOT the papers' data)" in title
    assert "protocol mini [" in title
    assert re.fullmatch(r"\d\d\.\d\[\d\d\.\d, \d\d\.\d\]", row[9][1])


def test_html_escapes_what_results_say_of_themselves(tables):
    html = html_table(tables[0])
    assert "<b>" not in html
    assert "voc5i_mini_scl_&amp;_&lt;b&gt;" in html


def test_the_page_links_to_every_table_and_asks_the_network_for_nothing(tables):
    page = texts("html", tables, ["x.json <was> damaged"])["tables.html"]
    assert re.findall(r'href="#([^"]+)"', page) == [t.layout.slug for t in tables]
    for table in tables:
        assert page.count(f'id="{table.layout.slug}"') == 1
    assert "x.json &lt;was&gt; damaged" in page
    assert "http" not in page.replace("http-equiv", "")


def test_markdown_rows_have_a_cell_for_each_heading_and_the_notes_stand_below(tables):
    text = markdown_paper_table(tables[0])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {16, 11}
    assert "fewseg on voc5i-mini, NOT the paper's data: Mean" in text
    scl = next(line for line in rows if line.startswith("| ours-SCL (PFENet)"))
    assert "| 63.0 | 70.0 | 56.5 | 57.7 | 61.8 | +1.0 | not run |" in scl
    assert "missing fold 2 <sup>" in scl
    assert "- <sup>a</sup> fewseg pfenet, 1-shot mean" in text
    assert "voc5i_mini_scl\\_&\\_\\<b>" in text
    assert "Printed value only, no recipe has this row: OSLSM (BMVC'17), " in text


def test_a_small_set_without_results_in_a_section_is_one_column_that_says_so(tables):
    one, five = markdown_paper_table(tables[0]).split("**5-shot**")
    assert "| fewseg on voc5i-mini, NOT the paper's data: all |" in five
    assert "NOT the paper's data: all" not in one


def check_latex(text):
    """Braces and environments in order, no sign left that LaTeX would stumble over, rows of one length."""
    assert text.isascii()
    bare = re.sub(r"(?m)%.*$", "", re.sub(r"\\[\\&%$#_{}]", "", text))
    depth = 0
    for sign in bare:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    assert not re.search(r"[#_~\"<>]", re.sub(r"\\label\{[^}]*\}", "", bare))
    assert bare.count("$") % 2 == 0
    assert not re.search(r"\^", re.sub(r"\$[^$]*\$", "", bare))
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{([^}]*)\}", text):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert stack == []
    for places, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        rows = [line for line in body.splitlines() if line.endswith(r" \\")][1:]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(places)}
        (blocks,) = [line for line in body.splitlines() if line.startswith(r"\multicolumn")]
        assert sum(map(int, re.findall(r"\\multicolumn\{(\d+)\}", blocks))) == len(places)


def test_latex_is_well_formed_in_every_table(tables):
    for table in tables:
        text = latex_paper_table(table)
        check_latex(text)
        assert rf"\label{{tab:{table.layout.slug}}}" in text
        assert text.count(r"\toprule") == text.count(r"\bottomrule") == len(table.sections)


def test_latex_text_has_no_sign_that_is_a_command():
    assert latex(r"a_b & 5 % of {x} $1 #2 \y ~ ^ <b>") == (
        r"a\_b \& 5 \% of \{x\} \$1 \#2 \textbackslash{}y \textasciitilde{} \textasciicircum{} "
        r"\textless{}b\textgreater{}"
    )
    assert latex("P.-5² ± †") == r"P.-5$^2$ $\pm$ \dag{}"


def test_csv_has_all_about_a_cell_in_its_line(tables):
    lines = list(csv.DictReader(io.StringIO(csv_tables(tables))))
    key = {"paper": "scl", "table": "1", "row": "SCL (PFENet)", "shots": "1"}
    own = [line for line in lines if all(line[k] == v for k, v in key.items())]
    mini = {line["column"]: line for line in own if line["dataset"] == "voc5i-mini"}
    assert mini["fold0"]["printed"] == "63.0"
    assert (mini["fold0"]["printed_dataset"], mini["fold0"]["papers_data"]) == ("pascal-5i", "no")
    assert float(mini["fold0"]["low"]) < float(mini["fold0"]["ours"]) < float(mini["fold0"]["high"])
    assert float(mini["fold0"]["gain_low"]) < float(mini["fold0"]["gain"]) < float(mini["fold0"]["gain_high"])
    assert mini["fold0"]["gain_over"] == "PFENet (TPAMI'20)"
    assert mini["fold0"]["recipe"] == "voc5i_mini_scl_&_<b>"
    assert (mini["fold2"]["status"], mini["fold2"]["ours"]) == ("not run", "")
    assert (mini["mean"]["status"], mini["mean"]["ours"]) == ("missing fold 2", "")
    assert (mini["mean"]["gain"], mini["mean"]["gain_status"]) == ("", "missing fold 2")
    full = [line for line in own if line["dataset"] == "pascal-5i"]
    assert {(line["status"], line["papers_data"], line["ours"]) for line in full} == {("not run", "yes", "")}
    others = [line for line in lines if line["row"] == "OSLSM"]
    assert {line["status"] for line in others} == {"no recipe has this row"}
    assert {line["dataset"] for line in others} == {""}


def test_our_standard_deviation_is_shown_where_the_paper_prints_one(tables):
    by_name = {table.layout.name: table for table in tables}
    texts_shown = [cell.text for row in shown(by_name["SRPNet, Table 2"]) for cell in row]
    assert "62.8±0.16" in texts_shown
    pfenet = next(row for row in shown(by_name["SRPNet, Table 2"]) if row[0].text == "PFENet")
    assert re.fullmatch(r"\d\d\.\d±\d\.\d\d", pfenet[9].text)
    assert not any("±" in cell.text for row in shown(by_name["SCL, Table 1"]) for cell in row)


@pytest.mark.parametrize("width", [60, 400])
def test_a_narrow_terminal_shows_the_means_and_says_what_is_missing(tables, width):
    console = Console(width=width, file=io.StringIO())
    console.print(rich_paper_table(page_of(tables[0]), width))
    text = console.file.getvalue()
    assert ("P.-5⁰" in text) == (width == 400)
    assert ("need a wider terminal" in " ".join(text.split())) == (width == 60)
    assert max(map(len, text.splitlines())) <= width


def test_footnotes_go_on_with_two_letters():
    letters = [_letter(n) for n in range(54)]
    assert (letters[0], letters[25], letters[26], letters[53]) == ("a", "z", "aa", "bb")
    assert len(set(letters)) == 54


def test_html_says_what_a_narrow_screen_can_do_without(tables):
    """Folds, backbones, and a data set without numbers; headings span what is left."""
    html = html_table(tables[0])
    kinds = [[set((named.get("class") or "").split()), named] for named, _ in cells(html)]
    few = [int(named["colspan"]) for kind, named in kinds if "few" in kind]
    full = [int(named["colspan"]) for kind, named in kinds if "full" in kind]
    assert full[:4] == [2, 6, 1, 6]
    assert few[:3] == [1, 2, 2], "Method; Mean and gain, printed and of the small set"
    row = re.search(r"<tr>\s*<th[^>]*>PFENet.*?</tr>", html, re.DOTALL)[0]
    shown = [text for named, text in cells(row) if "detail" not in named["class"].split()]
    assert shown[:3] == ["PFENet (TPAMI'20)", "60.8", ""]
    assert re.fullmatch(r"\d\d\.\da\[.*\]", shown[3])
    assert len(shown) == 5


def test_a_block_without_numbers_stays_where_there_is_no_other():
    html = html_table(paper_tables(results_of({}))[0])
    assert 'class="number status start detail"' not in html
    assert "not run" in html
