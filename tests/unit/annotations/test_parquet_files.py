"""Results as Parquet files, of any place."""

import numpy as np
import pytest

from fewseg.annotations.values import Prediction
from fewseg.annotations.writer import line_of

pyarrow = pytest.importorskip("pyarrow")
fsspec = pytest.importorskip("fsspec")

from fewseg.annotations.parquet import parquet_bytes, part_name, read_columns, read_parquet  # noqa: E402
from fewseg.ops.places import exists, write_bytes  # noqa: E402
from fewseg.types import DataError  # noqa: E402


def written(folder, *names, run=""):
    """Writes a file of a run, of images of some names."""
    labels = np.eye(4, 5, dtype=np.uint8)
    found = [Prediction(name=name, labels=labels, classes=("a",), scores=(0.5,)) for name in names]
    lines = [{"name": p.name, **line_of(p)} for p in found]
    write_bytes(str(folder), part_name(names), parquet_bytes(lines, ("a",), run))


@pytest.mark.parametrize(
    "other", [".part-1.parquet.tmp-7.parquet", "photos.parquet", "below/part-1.parquet", "part-1.parquet.crc"]
)
@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_other_files_that_lie_among_the_results_are_not_read(tmp_path, other, kind):
    folder = str(tmp_path / "out[1]") if kind == "disk" else f"memory://results-{other}"
    written(folder, "x.png", "y.png")
    content = parquet_bytes([{"name": "other.png", "problem": "none of this run"}], ("a",))
    *below, name = other.split("/")
    write_bytes("/".join([folder, *below]), name, content)
    assert read_columns(folder, ["name"]) == {"name": ["x.png", "y.png"]}
    assert [p.name for p in read_parquet(folder)] == ["x.png", "y.png"]
    assert exists(folder, part_name(("x.png", "y.png")))
    assert not exists(folder, part_name(("x.png",)))


def test_a_folder_that_does_not_exist_has_no_results(tmp_path):
    assert list(read_parquet(str(tmp_path / "gone"))) == []
    assert not exists(str(tmp_path / "gone"), part_name(("x.png",)))


def test_results_of_runs_with_different_settings_are_refused(tmp_path):
    folder = str(tmp_path)
    written(folder, "x.png", run="one")
    written(folder, "old.png")  # of an earlier version, without a key
    assert sorted(read_columns(folder, ["name"], "one")["name"]) == ["old.png", "x.png"]
    with pytest.raises(
        DataError, match=r"part-\w+.parquet is of a run with other supports, model or settings"
    ):
        read_columns(folder, ["name"], "other")
    written(folder, "y.png", run="two")
    with pytest.raises(
        DataError, match=r"part-\w+.parquet is of a run with other supports, model or settings"
    ):
        list(read_parquet(folder))
