import pytest

from result_files import make_counts, make_result


@pytest.fixture
def counts_of_fold():
    return make_counts


@pytest.fixture
def result_of():
    return make_result


@pytest.fixture
def write(tmp_path):
    """Writes a result file and returns its path."""

    def write_result(name, fold=0, better=0.0, drawn_from=0, **changes):
        counts = make_counts(fold, better, drawn_from=drawn_from)
        path = tmp_path / "results" / f"{name}.json"
        make_result(counts, fold, **changes).save(path, counts)
        return path

    return write_result
