import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fewseg.inference import Model, Segmenter
from fewseg.inference.onnx import export_onnx, state_tensors, with_tensors
from small_segmenters import SIZE, model, picture, with_squares


@pytest.mark.parametrize("name", ["matcher", "pfenet", "fitted"])
@pytest.mark.parametrize("ways", [1, 2])
def test_a_state_comes_apart_into_tensors_and_together_again(name, ways):
    it = with_squares(name)
    if ways == 2:
        it.add_class("dark", picture(4)[0], 1 - picture(4)[1])
    state = it.session().state
    tensors = state_tensors(state)
    assert all(isinstance(value, torch.Tensor) for value in tensors.values())
    doubled = with_tensors(state, {k: v if v.dtype == torch.bool else v * 2 for k, v in tensors.items()})
    assert type(doubled) is type(state)
    back = state_tensors(doubled)
    assert list(back) == list(tensors)
    assert all(torch.equal(back[k], v if v.dtype == torch.bool else v * 2) for k, v in tensors.items())


@pytest.mark.parametrize("name", ["matcher", "pfenet"])  # fitted heads: the graphs of auto
def test_the_graphs_give_what_torch_gives_for_any_image_and_state(name, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    it = with_squares(name)
    session = it.session()
    done = export_onnx(it.model, session, tmp_path)
    assert max(done.extract_error, done.segment_error) < 1e-3
    about = json.loads((tmp_path / "model.json").read_bytes())
    assert about["size"] == SIZE
    assert about["model"] == it.model.digest
    query = it.model.prepare(torch.from_numpy(picture(9)[0]).permute(2, 0, 1))
    graphs = {n: runtime.InferenceSession(str(tmp_path / f"{n}.onnx")) for n in ("extract", "segment")}
    maps = graphs["extract"].run(None, {"images": query.views.numpy()})
    feed = dict(zip(about["levels"], maps, strict=True))
    feed |= {k: v.numpy() for k, v in state_tensors(session.state).items()}
    wanted = {given.name for given in graphs["segment"].get_inputs()}
    (logits,) = graphs["segment"].run(None, {k: v for k, v in feed.items() if k in wanted})
    (answer,) = session.segment_all(it.model.encode([query]), quality=False)
    h, w = answer.margins.shape[1:]
    margins = (logits[:, 1:] - logits[:, :1])[0, :, :h, :w]
    np.testing.assert_allclose(margins, answer.margins.numpy(), atol=1e-3, rtol=1e-3)


def test_the_graphs_of_auto_give_the_mask_of_the_chosen_method_with_its_thresholds(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    plain = model("fitted")
    it = Segmenter(Model(plain.method, plain.config, SIZE, chooses=True, refine=True))
    for k in range(3):
        it.add_class("square", *picture(k))
    session = it.session()
    sure = {"square": replace(session.choice.classes["square"], threshold=0.95)}
    session.choice = replace(session.choice, classes=sure)
    export_onnx(it.model, session, tmp_path)
    about = json.loads((tmp_path / "model.json").read_bytes())
    assert about["choice"]["name"] == session.choice.name
    assert about["choice"]["classes"]["square"]["threshold"] == 0.95
    query = it.model.prepare(torch.from_numpy(picture(9)[0]).permute(2, 0, 1))
    graphs = {n: runtime.InferenceSession(str(tmp_path / f"{n}.onnx")) for n in ("extract", "segment")}
    maps = graphs["extract"].run(None, {"images": query.views.numpy()})
    feed = dict(zip(about["levels"], maps, strict=True)) | {
        name: value.numpy() for name, value in state_tensors(session.state).items()
    }
    feed["guide"] = np.rint(query.views.numpy() * 255).astype(np.uint8)
    wanted = {given.name for given in graphs["segment"].get_inputs()}
    (logits,) = graphs["segment"].run(None, {k: v for k, v in feed.items() if k in wanted})
    (answer,) = session.segment_all(it.model.encode([query]), quality=False)
    assert answer.labels.any()
    assert (answer.at(0.05).labels != answer.labels).any()
    h, w = answer.margins.shape[1:]
    np.testing.assert_array_equal(logits[0].argmax(axis=0)[:h, :w], answer.margins[0].numpy() > 0)


def test_graphs_that_differ_from_torch_are_not_called_an_export(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    it = with_squares("matcher")
    (tmp_path / "model.json").write_text('{"format": "fewseg-onnx-1"}')  # of an earlier export
    with pytest.raises(ValueError, match="differ from torch"):
        export_onnx(it.model, it.session(), tmp_path, tolerance=-1.0)
    assert not (tmp_path / "model.json").exists()


@pytest.mark.parametrize(
    ("text", "problem"), [('{"layers": 3}', "is not of an export of fewseg"), ("no JSON", "cannot be read")]
)
def test_a_description_of_something_else_is_kept(tmp_path, text, problem):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    it = with_squares("matcher")
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ValueError, match=problem):
        export_onnx(it.model, it.session(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.json"]
    assert (tmp_path / "model.json").read_text() == text


def test_without_the_extra_the_command_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    it = with_squares("matcher")
    with pytest.raises(RuntimeError, match=r"fewseg\[onnx\]"):
        export_onnx(it.model, it.session(), tmp_path)
