"""``fewseg label --ray`` on a stand-in for Ray: what is asked of it, and in which order."""

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from PIL import Image

from fewseg.annotations.parquet import parquet_bytes, read_columns
from fewseg.inference import LabelOptions, ModelOptions, cluster
from fewseg.inference.choose import Choice
from fewseg.inference.options import RunOptions
from fewseg.inference.quality import HeldOut
from fewseg.inference.supports import SupportImage
from fewseg.ops.places import write_bytes
from fewseg.types import DataError
from small_segmenters import picture, tiny_checkpoint

pytest.importorskip("fsspec")
pytest.importorskip("pyarrow")
from fsspec.implementations.local import LocalFileSystem


@pytest.fixture
def options(tmp_path):
    """Options of supports, a model and five photographs."""
    for name in ("sup/images/0.png", "sup/masks/0.png", *(f"photos/{k}.png" for k in range(5))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(0)["masks" in name]).save(tmp_path / name)
    model = ModelOptions(model=str(tiny_checkpoint(tmp_path / "tiny.safetensors")))
    given = {"support": tmp_path / "sup", "images": (str(tmp_path / "photos"),), "model": model}
    return LabelOptions(**given, out=tmp_path / "out", ray=True, ray_shard=2, run=RunOptions(quiet=True))


def stand_in(monkeypatch, **resources):
    """As much of Ray as is used."""
    ray = MagicMock()
    ray.is_initialized.return_value = True
    ray.exceptions.RayError = RuntimeError
    ray.nodes.return_value = [{"Alive": True, "Resources": resources}]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr("fewseg.engine.executors._check_versions", lambda ray: None)
    return ray


@pytest.mark.parametrize(
    ("workers", "actors", "each"),
    [(2, 2, {"num_cpus": 1, "num_gpus": 0}), (64, 3, {"num_cpus": 1, "num_gpus": 1})],
)
def test_there_are_no_more_actors_than_shards(monkeypatch, options, workers, actors, each):
    ray = stand_in(monkeypatch)
    options = replace(options, ray_workers=workers)
    images = {f"{k}.png": ("file://", f"/{k}.png") for k in range(5)}
    session = MagicMock(choice=None)
    assert list(cluster._label(ray, None, MagicMock(), session, images, "out", options, each)) == []
    asked = ray.data.from_items.return_value.map.call_args.kwargs
    assert {name: asked[name] for name in each} == each
    assert ray.data.ActorPoolStrategy.call_args.kwargs == {"size": actors}


def test_what_is_sent_lies_on_the_cpu(monkeypatch, options):
    ray = stand_in(monkeypatch)
    place = {"model": "cuda", "choice": "cuda"}

    def network(name):
        return MagicMock(method=MagicMock(to=lambda device: place.update({name: device.type})))

    def image(device):
        return SupportImage(image=SimpleNamespace(digest="d", device=device))

    def put(sent):
        assert place == {"model": "cpu", "choice": "cpu"}
        _, supports, choice, _ = sent
        assert [s.image.device for s in (*supports.images, choice.held[0].image)] == ["cpu", "cpu"]

    ray.put = MagicMock(side_effect=put)
    about = {"name": "a", "classes": {}, "candidates": {}, "calibrated": True, "notes": ()}
    held = (HeldOut(image=image("cuda"), margins=torch.zeros(1), known=()),)
    supports = MagicMock(to=lambda device: MagicMock(images=(image(device.type),)))
    session = MagicMock(supports=supports, choice=Choice(**about, model=network("choice"), held=held))
    options = replace(options, ray_workers=1)
    given = (session, {"a.png": ("file://", "/a.png")}, "out", options, {})
    segmenter = SimpleNamespace(model=network("model"), value_range=None)
    assert list(cluster._label(ray, None, segmenter, *given)) == []
    assert ray.put.called


@pytest.fixture
def labeller(monkeypatch, options):
    """An actor of this process."""
    ray = stand_in(monkeypatch, CPU=1.0)
    ray.get = lambda value: value
    segmenter, _ = cluster.segmenter_of(options)
    session = segmenter.session()
    keeper = MagicMock()
    keeper.begin.remote.return_value = 1
    given = (segmenter.model, session.supports, session.choice, None)
    return cluster.ShardLabeller(given, keeper, str(options.out), options)


def shard(options, *names):
    paths = [f"{options.images[0]}/{name}" for name in names]
    return {"names": list(names), "places": ["file://"] * len(names), "paths": paths}


def refuse(monkeypatch, refused):
    """Has the file system refuse files by ``refused(name)``."""
    read = LocalFileSystem.cat_file

    def cat_file(self, path, **limits):
        if refused(Path(path).name):
            raise PermissionError(13, "Permission denied")
        return read(self, path, **limits)

    monkeypatch.setattr(LocalFileSystem, "cat_file", cat_file)


def test_an_image_that_may_not_be_read_is_a_problem_of_its_own(monkeypatch, options, labeller):
    refuse(monkeypatch, {"1.png", "3.png", "4.png"}.__contains__)
    assert labeller(shard(options, "0.png", "1.png", "2.png")) == {"images": 3, "error": ""}
    assert labeller(shard(options, "3.png", "4.png")) == {"images": 2, "error": ""}  # 2.png still can be read
    rows = read_columns(str(options.out), ["name", "problem"])
    found = dict(zip(rows["name"], rows["problem"], strict=True))
    assert sorted(name for name, problem in found.items() if problem is None) == ["0.png", "2.png"]
    assert re.match(
        r"1.png: \S+1.png of file:// cannot be read .*Permission denied\): check its", found["1.png"]
    )


@pytest.mark.parametrize("after", [0, 2])
def test_a_place_that_refuses_all_ends_the_run_and_makes_nothing_a_problem(
    monkeypatch, options, labeller, after
):
    """As where credentials are wrong from the start, or expire in the middle."""
    reads = iter(range(99))
    refuse(monkeypatch, lambda _: next(reads) >= after)
    ended = labeller(shard(options, *(f"{k}.png" for k in range(5))))
    assert "0.png of file:// cannot be read" in ended["error"] or after
    assert ended["error"].endswith("check its rights and the credentials, which all machines need")
    assert not list(options.out.glob("*.parquet"))


@pytest.fixture
def here(monkeypatch, options, labeller):
    """Has all images labelled in this process, as one shard."""
    monkeypatch.setattr(cluster, "_label", lambda ray, keeper, segmenter, session, images, *_: iter(
        [labeller(shard(options, *images))] if images else []
    ))  # fmt: skip


def test_results_of_a_run_with_other_settings_are_refused(options, labeller, here):
    """As where two clusters began at once, so that neither saw the record of the other."""
    assert cluster.label_on_ray(options).done == 5
    (options.out / "run.json").unlink()
    assert cluster.label_on_ray(replace(options, ray_format=("labelme",))).before == 5
    (options.out / "run.json").unlink()
    with pytest.raises(
        DataError, match=r"part-\w+.parquet is of a run with other supports, model or settings"
    ):
        cluster.label_on_ray(replace(options, run=replace(options.run, threshold=0.7)))


def test_an_image_with_masks_has_no_problem_whatever_another_file_says(options):
    lines = {"masks": {"name": "x.png"}, "bad": {"name": "x.png", "problem": "gone"}}
    for order in (("masks", "bad"), ("bad", "masks"), ("bad", "bad")):
        for k, kind in enumerate(order):
            content = parquet_bytes([lines[kind], {"name": f"{k}.png", "problem": kind}], ("a",))
            write_bytes(str(options.out), f"part-{k}.parquet", content)
        found = cluster._problems_by_name(str(options.out), "")
        assert found == {"x.png": None if "masks" in order else "gone", "0.png": order[0], "1.png": order[1]}


def test_every_bad_image_is_named_at_the_end(tmp_path, options, here, caplog):
    photos = tmp_path / "photos"
    (photos / "2.png").write_bytes(b"nothing")
    (photos / os.fsdecode(b"\xff.png")).write_bytes((photos / "0.png").read_bytes())
    options = replace(options, ray_format=("png",), run=replace(options.run, sheet=2))
    for done, before in ((4, 0), (0, 4)):
        caplog.clear()
        report = cluster.label_on_ray(options)
        assert (report.done, report.before) == (done, before)
        assert list(report.problems) == [r"\udcff.png", "2.png"]
        assert "skipped: the file name '\\udcff.png' is not UTF-8: rename the file" in caplog.text
        assert re.search(r"skipped: .*2.png cannot be read", caplog.text)
    assert "2.png cannot be read" in (options.out / "contact-sheet.html").read_text("utf-8")


def test_the_keeper_lives_on_the_machine_that_leads(monkeypatch, tmp_path):
    ray = stand_in(monkeypatch)
    with cluster._claimed(ray, str(tmp_path), {}):
        pass
    at = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    at.assert_called_once_with(ray.get_runtime_context().get_node_id(), soft=False)
    made = ray.remote.return_value.return_value.options
    assert made.call_args.kwargs["scheduling_strategy"] is at.return_value


WRONG = {
    "no Ray": (lambda patch, _: patch.setitem(sys.modules, "ray", None), "install fewseg\\[ray\\]"),
    "no cluster": (
        lambda patch, _: (
            setattr(stand_in(patch), "is_initialized", lambda: False)
            or setattr(sys.modules["ray"], "init", MagicMock(side_effect=ConnectionError("no cluster there")))
        ),
        "no cluster there",
    ),
    "no CPU": (lambda patch, _: stand_in(patch, GPU=1.0), "the Ray cluster has 0 CPUs .* --num-cpus"),
    "no image": (
        lambda patch, folder: [path.unlink() for path in (folder / "photos").iterdir()],
        "found no images there",
    ),
    "a file in place of --out": (lambda patch, folder: (folder / "out").touch(), "out is a file; choose ano"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_told_before_a_model_is_loaded(monkeypatch, tmp_path, options, kind):
    make, words = WRONG[kind]
    stand_in(monkeypatch, CPU=1.0)
    make(monkeypatch, tmp_path)
    monkeypatch.setattr(cluster, "segmenter_of", loads := MagicMock())
    with pytest.raises((ValueError, OSError, RuntimeError), match=words):
        cluster.label_on_ray(options)
    assert not loads.called


def test_an_archive_is_no_place_for_results(options):
    options = LabelOptions(**{**vars(options), "out": Path("s3://bucket/out.zip")})
    with pytest.raises(ValueError, match=r"cannot write into an archive, got --out s3://bucket/out.zip"):
        options.check()
