"""``fewseg label --ray`` on a stand-in for Ray: what is asked of it, and in which order."""

import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from PIL import Image

from fewseg.inference import LabelOptions, ModelOptions, cluster
from fewseg.inference.options import RunOptions
from small_segmenters import picture, tiny_checkpoint

pytest.importorskip("fsspec")


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
    ray.cluster_resources.return_value = resources
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr("fewseg.engine.executors._check_versions", lambda ray: None)
    return ray


@pytest.mark.parametrize(
    ("resources", "workers", "actors", "gpus"),
    [
        ({"CPU": 2.0}, 0, 2, 0),
        ({"CPU": 64.0}, 0, 3, 0),
        ({"CPU": 8.0, "GPU": 2.0}, 0, 2, 1),
        ({"CPU": 8.0, "GPU": 2.0}, 1, 1, 1),
        ({"CPU": 8.0}, 1, 1, 0),
    ],
)
def test_an_actor_has_a_gpu_where_the_cluster_has_any(monkeypatch, options, resources, workers, actors, gpus):
    ray = stand_in(monkeypatch, **resources)
    count, each = cluster._workers(ray, workers)
    options = LabelOptions(**{**vars(options), "ray_workers": count})
    images = {f"{k}.png": ("file://", f"/{k}.png") for k in range(5)}
    assert list(cluster._label(ray, None, MagicMock(), MagicMock(), images, "out", options, each)) == []
    asked = ray.data.from_items.return_value.map.call_args.kwargs
    assert (asked["num_cpus"], asked["num_gpus"]) == (1, gpus)
    assert ray.data.ActorPoolStrategy.call_args.kwargs == {"size": actors}


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
    "no CPU": (lambda patch, _: stand_in(patch, GPU=1.0), "the Ray cluster has no CPU, .* --num-cpus"),
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
