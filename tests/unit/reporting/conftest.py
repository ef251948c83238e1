import pytest

from fewseg.reports.frame import results_of
from fewseg.reports.options import SiteOptions
from fewseg.reports.site.build import write_site
from result_files import make_counts, make_result
from site_page import Page


@pytest.fixture
def frame_of():
    """(results, or pairs of results and counts) -> their frame, by keys that are numbers."""

    def framed(found, **options):
        pairs = [each if isinstance(each, tuple) else (each, None) for each in found]
        runs = {str(number): run for number, (run, _) in enumerate(pairs)}
        counts = {str(number): own for number, (_, own) in enumerate(pairs)}
        return results_of(runs, counts, **options)

    return framed


@pytest.fixture
def write(tmp_path):
    """Writes a result file and returns its path."""

    def write_result(name, fold=0, better=0.0, drawn_from=0, **changes):
        counts = make_counts(fold, better, drawn_from=drawn_from)
        path = tmp_path / "results" / f"{name}.json"
        make_result(counts, fold, **changes).save(path, counts)
        return path

    return write_result


@pytest.fixture
def folder(write):
    """Two methods on four folds, one of them with a fifth, unfinished row."""
    for fold in range(4):
        write(f"pfenet-{fold}", fold, training={"checkpoint": f"p{fold}", "seed": 0})
        write(f"scl-{fold}", fold, better=0.03, method="scl-pfenet", recipe="voc5i_mini_scl")
    return write("late", 2, better=0.01, method="panet", recipe="voc5i_mini_panet").parent


@pytest.fixture
def make(tmp_path):
    def made(folder, **options):
        path = tmp_path / "out" / "site.html"
        site = write_site(SiteOptions(folder=folder, out=path, quiet=True, **options))
        text = site.path.read_text()
        assert site.size == len(text.encode())
        return site, text, Page(text)

    return made
