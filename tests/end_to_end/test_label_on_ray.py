"""``fewseg label --ray`` on a local Ray of two workers, with images and results in an S3 server of moto."""

import os
import platform
import re
import signal
import sys
import threading
import time
from importlib import metadata

import pytest

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # as fewseg does, before Ray is first imported
ray = pytest.importorskip("ray")
pytest.importorskip("pyarrow")
s3fs = pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")

from fewseg.annotations.jsonl import read_jsonl  # noqa: E402 - after what may be absent
from fewseg.annotations.parquet import read_parquet  # noqa: E402
from fewseg.cli import main  # noqa: E402
from fewseg.engine import executors  # noqa: E402
from fewseg.inference import cluster  # noqa: E402
from fewseg.inference.outputs import Outputs  # noqa: E402
from small_segmenters import SIZE, picture, tiny_checkpoint  # noqa: E402


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Supports and eight images of one folder, one of which is broken; they lie in a bucket too."""
    from PIL import Image

    root = tmp_path_factory.mktemp("ray")
    tiny_checkpoint(root / "tiny.safetensors")
    for folder, first, count in (("sup/images", 0, 2), ("photos", 10, 7)):
        (root / folder).mkdir(parents=True)
        for k in range(count):
            Image.fromarray(picture(first + k, hw=(40 + k, 60))[0]).save(root / folder / f"{k}.png")
    (root / "photos/broken.png").write_bytes(b"nothing")
    (root / "sup/masks").mkdir()
    for k in range(2):
        Image.fromarray(picture(k, hw=(40 + k, 60))[1]).save(root / f"sup/masks/{k}.png")
    return root


class Server:
    """An S3 server that may stop; what it holds stays in this process."""

    def __init__(self):
        self.port = 0

    def start(self):
        self.own = server.ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self.own.start()
        _, self.port = self.own.get_host_and_port()

    def stop(self):
        self.own.stop()


@pytest.fixture(scope="module")
def s3():
    own = Server()
    own.start()
    yield own
    own.stop()


@pytest.fixture(scope="module")
def store(place, s3):
    """The file system of an S3 server, and Ray, whose workers reach it."""
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3.port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "RAY_worker_niceness": "0",  # else they starve beside tests of others
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        fs = s3fs.S3FileSystem()
        fs.mkdir("data")
        fs.put(str(place / "photos"), "data/photos", recursive=True)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield fs
        ray.shutdown()


@pytest.fixture
def run(place, store, capfd, caplog):
    """Runs the command; gives its exit status and its text in one line."""

    def call(*words, images="s3://data/photos", out="s3://data/out"):
        given = ["label", "--support", place / "sup", "--model", place / "tiny.safetensors", "--size", SIZE]
        given += ["--images", images, "--out", out, "--quiet", *words]
        status = main([str(word) for word in given])
        text = capfd.readouterr()
        return status, re.sub(r"\s+", " ", text.out + text.err)

    return call


class KilledOnce(cluster.ShardLabeller):
    """Its process is killed in the middle of its first shard, once."""

    def _lines(self, places, summary):
        mark = self.options.support / "killed"
        found = super()._lines(places, summary)
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return found


class Waiting(cluster.ShardLabeller):
    """All but the first shard wait with their masks until the store has stopped."""

    def _lines(self, places, summary):
        found = super()._lines(places, summary)
        marks = self.options.support
        if (marks / "first").exists():
            (marks / "others").touch()
            while not (marks / "stopped").exists():
                time.sleep(0.05)
        (marks / "first").touch()
        return found


class OutOfReach(cluster.ShardLabeller):
    """Its store is gone before it writes."""

    def _lines(self, places, summary):
        found = super()._lines(places, summary)
        self.out = "s3://gone/out"
        return found


def values_of(prediction):
    return prediction.labels.tobytes(), prediction.labels.shape, prediction.scores, prediction.facts


def test_the_masks_are_those_of_one_machine_whatever_is_killed(run, place, store, monkeypatch, caplog):
    status, text = run("--format", "jsonl", images=place / "photos", out=place / "alone")
    assert status == 3
    summary, _ = text.split("output: ")
    assert summary.startswith("labelled: 7; skipped: 1 object: mean quality 0.")
    wanted = {p.name: values_of(p) for p in read_jsonl(place / "alone/predictions.jsonl")}
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(cluster, "ShardLabeller", KilledOnce)
    status, text = run("--ray", "--ray-shard", "2")
    assert (place / "sup/killed").exists()
    assert status == 3
    assert summary in text
    assert re.search(r"skipped: .*broken.png", caplog.text)
    found = {p.name: values_of(p) for p in read_parquet("s3://data/out")}
    assert found == wanted
    assert len(found) == 7
    parts = store.glob("data/out/*.parquet")
    assert len(store.ls("data/out", refresh=True)) == len(parts) + 1 == 5
    monkeypatch.undo()

    store.rm(parts[0])
    store.put(str(place / "photos/1.png"), "data/photos/new.png")
    status, text = run("--ray", "--ray-shard", "2")
    now, before = map(int, re.search(r"labelled: (\d), (\d) were labelled before", text).groups())
    assert now in (2, 3)  # the lost file's, one of which may be the broken one, and the new one
    assert now + before == 8
    found = {p.name: values_of(p) for p in read_parquet("s3://data/out")}
    assert {k: v for k, v in found.items() if k != "new.png"} == wanted
    assert found["new.png"] == wanted["1.png"]
    status, text = run("--ray", "--threshold", "0.6")
    assert status == 1
    assert "holds a run with a different threshold" in text


def files_of(folder):
    """File to lines, but for what Ray changes: the record, thumbnails of few, where a bad image lies."""
    files = [f for f in folder.rglob("*") if f.is_file() and f.name != "run.json" and f.suffix != ".parquet"]
    lines = {f: f.read_bytes().split(b"\n") for f in files if f.parent.name != ".thumbnails"}
    return {str(f.relative_to(folder)): [k for k in own if b"broken" not in k] for f, own in lines.items()}


def test_other_formats_are_the_files_of_one_machine_after_a_full_disk_too(run, place, monkeypatch):
    formats = ("png", "coco", "labelme-polygons", "label-studio", "yolo", "cvat", "coco-results")
    things = ("--instances", "components", "--min-area", "9", "--sheet", "4")
    run("--format", *formats, *things, images=place / "photos", out=place / "single")
    words = ("--ray", "--ray-workers", "1", "--ray-shard", "3", *things, "--ray-format", *formats)
    write, left = Outputs.write, iter(range(4))

    def full(outputs, prediction):
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        write(outputs, prediction)

    with monkeypatch.context() as patch:
        patch.setattr(Outputs, "write", full)
        status, text = run(*words, images=place / "photos", out=place / "formats")
        assert (status, "No space left on device" in text) == (1, True)
    status, text = run(*words, images=place / "photos", out=place / "formats")
    assert (status, "labelled: 0, 7 were labelled before" in text) == (3, True), text
    wanted, found = files_of(place / "single"), files_of(place / "formats")
    assert {"contact-sheet.html", "summary.csv", "predictions.jsonl", "coco.json"} <= wanted.keys()
    assert [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)] == []


@pytest.mark.parametrize(
    ("words", "out", "wrong"),
    [
        (("--ray", "--format", "coco"), "s3://data/out", "give --ray-format in place of --format"),
        (
            ("--ray", "--ray-format", "coco"),
            "s3://data/out",
            "needs an --out on a disk of this machine, got s3",
        ),
        (("--ray", "--ray-format", "probability"), "here", "cannot be probability"),
        (("--ray", "--ray-format", "labelme", "labelme-polygons"), "here", "write the same files"),
        (("--ray-format", "coco"), "here", "--ray-format is for --ray"),
    ],
)
def test_formats_that_cannot_be_written_are_named(run, words, out, wrong):
    status, text = run(*words, out=out)
    assert (status, wrong in text) == (1, True), text


def test_a_store_that_vanishes_ends_the_run_in_one_line(run, place, monkeypatch):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(cluster, "ShardLabeller", OutOfReach)
    status, text = run("--ray", "--ray-workers", "1", images=place / "photos", out=place / "reach")
    assert status == 1
    assert "s3://gone/out" in text
    assert "the same command goes on" in text
    assert "Traceback" not in text


def test_a_store_that_stops_in_the_middle_loses_nothing(run, place, store, s3, monkeypatch):
    def stop():
        while not (place / "sup/others").exists():
            time.sleep(0.05)
        s3.stop()
        (place / "sup/stopped").touch()

    out = "s3://data/half"
    assert run("--format", "jsonl", images=place / "photos", out=place / "whole")[0] == 3
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(cluster, "ShardLabeller", Waiting)
    stopping = threading.Thread(target=stop)
    stopping.start()
    status, text = run("--ray", "--ray-shard", "2", images=place / "photos", out=out)
    stopping.join()
    assert status == 1
    assert "the same command goes on" in text
    assert "Traceback" not in text
    monkeypatch.undo()

    s3.start()
    assert run("--ray", "--ray-shard", "2", images=place / "photos", out=out)[0] == 3
    found = {p.name: values_of(p) for p in read_parquet(out)}
    assert found == {p.name: values_of(p) for p in read_jsonl(place / "whole/predictions.jsonl")}


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ("s3://data/nothing", "s3://data/nothing: found no images there"),
        ("s3://nowhere/photos", "s3://nowhere/photos does not exist: give folders"),
    ],
)
def test_an_empty_listing_is_named(run, images, words):
    status, text = run("--ray", images=images)
    assert status == 1
    assert words in text


def test_missing_credentials_are_named(run, monkeypatch):
    from fewseg.ops.places import opened

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3fs.S3FileSystem.clear_instance_cache()
    opened.cache_clear()
    status, text = run("--ray")
    assert status == 1
    assert "s3://data/photos cannot be reached (Unable to locate credentials)" in text
    s3fs.S3FileSystem.clear_instance_cache()
    opened.cache_clear()


@pytest.mark.parametrize("command", ["label", "evaluate"])
@pytest.mark.parametrize("what", ["Python", "fewseg"])
def test_another_version_on_the_cluster_is_named(run, monkeypatch, what, command):
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "9.9" if name == what else version(name))
    if what == "Python":
        monkeypatch.setattr(platform, "python_version", lambda: "9.9")
    words = (
        rf"the machine [\d.]+ of the Ray cluster has {what} \S+ \(here 9.9\): install the same version on all"
    )
    if command == "label":
        status, text = run("--ray")
        assert status == 1
        assert re.search(words, text), text
    else:
        with pytest.raises(RuntimeError, match=words), executors.RayWorkers(object, 1):
            pass


@pytest.mark.parametrize("out", ["s3://data/busy", "busy"])
def test_two_runs_into_one_place_do_not_mix(run, place, out):
    out = out if "://" in out else str(place / out)
    with cluster._claimed(ray, out, {}):
        status, text = run("--ray", out=out)
    assert status == 1
    assert re.search(f"another run labels into {out} now: wait for it, or choose a different place", text)
