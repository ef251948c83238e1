"""The backbone in ONNX Runtime: the same answers, and clear words where it cannot be."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from fewseg.annotations.jsonl import read_jsonl
from fewseg.cli import main
from fewseg.inference import Model, Segmenter, Tiles
from fewseg.inference.onnx import export_onnx, on_onnx_runtime
from fewseg.types import DataError
from small_segmenters import SIZE, model, picture, segmenter, tiny_checkpoint


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """What `fewseg export` writes of the tiny matcher."""
    folder = tmp_path_factory.mktemp("graphs")
    it = segmenter("matcher")
    it.add_class("square", *picture(0))
    export_onnx(it.model, it.session(), folder)
    return folder


def answers(it, image):
    it.add_class("square", [picture(k)[0] for k in (0, 1)], [picture(k)[1] for k in (0, 1)])
    return it.segment(image)


@pytest.mark.parametrize("views", [None, Tiles(side=40)], ids=["whole", "tiles"])
def test_answers_are_those_of_torch_for_whole_images_and_tiles(exported, views, monkeypatch):
    own = model("matcher", views=views)
    other = on_onnx_runtime(own, exported)
    wanted, found = (answers(Segmenter(m), picture(9)[0]) for m in (own, other))
    np.testing.assert_allclose(found.probability, wanted.probability, atol=1e-4)
    assert found.quality.score == pytest.approx(wanted.quality.score, abs=1e-3)
    assert other.digest == own.digest
    monkeypatch.setattr(own.method.backbone, "forward", lambda x: pytest.fail("torch ran the backbone"))
    other.encode([other.prepare(torch.from_numpy(picture(8)[0]).permute(2, 0, 1))])


def test_the_graph_of_a_pair_method_is_made_on_the_way():
    own = model("scl-pfenet")
    wanted, found = (answers(Segmenter(m), picture(9)[0]) for m in (own, on_onnx_runtime(own)))
    np.testing.assert_allclose(found.probability, wanted.probability, atol=1e-4)


def test_edges_are_refined_there_too(exported):
    plain = model("matcher")
    own = Model(plain.method, plain.config, SIZE, refine=True)
    wanted, found = (answers(Segmenter(m), picture(9)[0]) for m in (own, on_onnx_runtime(own, exported)))
    np.testing.assert_allclose(found.probability, wanted.probability, atol=1e-3)
    assert not np.allclose(found.probability, answers(Segmenter(plain), picture(9)[0]).probability, atol=1e-2)


def test_a_folder_of_another_size_or_model_or_of_nothing_is_refused(exported, tmp_path):
    with pytest.raises(DataError, match=r"was exported at 65 pixels, this model has 73"):
        on_onnx_runtime(model("matcher", size=73), exported)
    with pytest.raises(ValueError, match=r"must not differ from matcher in torch by .* from this model"):
        on_onnx_runtime(model("matcher", seed=5), exported)
    for other in ("panet", "scl-pfenet"):
        with pytest.raises(DataError, match=r"was exported from a different model: its maps have other"):
            on_onnx_runtime(model(other), exported)
    with pytest.raises(DataError, match="give a folder that `fewseg export` wrote"):
        on_onnx_runtime(model("matcher"), tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({"format": "fewseg-onnx-1", "size": SIZE}))
    with pytest.raises(DataError, match="is not a complete export"):
        on_onnx_runtime(model("matcher"), tmp_path)
    (tmp_path / "extract.onnx").write_bytes(b"no graph")
    with pytest.raises(DataError, match=r"extract\.onnx cannot be used .* export it again"):
        on_onnx_runtime(model("matcher"), tmp_path)


def test_a_method_that_cannot_be_exported_is_reported_in_one_line(monkeypatch):
    own = model("matcher")
    extract = own.method.extract

    def branches(images):
        return extract(images if float(images.mean()) > 0 else images * 2)  # not in a graph

    monkeypatch.setattr(own.method, "extract", branches)
    with pytest.raises(ValueError, match=r"a step that cannot be exported \(.*[Gg]uard") as caught:
        on_onnx_runtime(own)
    assert "\n" not in str(caught.value)


def test_the_command_labels_with_it(exported, tmp_path, capfd, write_image, write_mask):
    checkpoint = tiny_checkpoint(tmp_path / "tiny.safetensors")
    for name, k in (("sup/images/x", 0), ("photos/y", 9)):
        write_image(tmp_path / f"{name}.png", picture(k)[0])
    write_mask(tmp_path / "sup/masks/x.png", picture(0)[1])
    words = ["label", "--support", tmp_path / "sup", "--images", tmp_path / "photos", "--model", checkpoint]
    words += ["--size", SIZE, "--quiet"]
    for out, more in (("a", []), ("b", ["--backend", "onnx", "--graphs", exported])):
        assert main([str(w) for w in [*words, "--out", tmp_path / out, *more]]) == 0
    (a,), (b,) = (list(read_jsonl(tmp_path / out / "predictions.jsonl")) for out in "ab")
    assert (a.labels != b.labels).sum() <= 2
    capfd.readouterr()
    assert main([str(w) for w in [*words, "--out", tmp_path / "c", "--graphs", exported]]) == 1
    assert "give --backend onnx too" in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "c").exists()
