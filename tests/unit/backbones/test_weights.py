"""Weight files: what is accepted, what is reported, what is refused."""

import hashlib
import pickle

import pytest
import torch
from safetensors.torch import save_file

from fewseg.backbones import BackboneConfig, ResNetShape, load_weights

TINY = ResNetShape(layers=(1, 1, 1, 1), channels=(8, 8, 8, 8), stem_width=4)


def tiny(weights=None, **settings):
    return BackboneConfig(name="resnet18", weights=weights, shape=TINY, **settings)


@pytest.fixture
def state():
    return tiny(seed=9).build().trunk.state_dict()


def equal(module, state):
    return all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_is_loaded_and_reported(tmp_path, state, suffix, prefix):
    path = tmp_path / f"weights{suffix}"
    content = {prefix + key: value for key, value in state.items()} | {f"{prefix}fc.weight": torch.zeros(2)}
    save_file(content, path) if suffix == ".safetensors" else torch.save(content, path)
    backbone = tiny(str(path)).build()
    assert equal(backbone.trunk, state)
    report = backbone.report
    assert set(report.matched) == set(state)
    assert (report.missing, report.mismatched, report.unexpected, report.ignored) == (
        (),
        (),
        (),
        ("fc.weight",),
    )
    assert report.complete
    assert report.source == path.name
    assert report.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert f"{len(state)} tensors matched" in report.summary()
    assert "classifier left out: fc (1)" in report.summary()


@pytest.mark.parametrize("wrap", ["state_dict", "model"])
def test_wrapped_and_prefixed_states_are_understood(tmp_path, state, wrap):
    inner = {f"module.{key}": value for key, value in state.items()}
    torch.save({"epoch": 3, wrap: {"state_dict": inner} if wrap == "model" else inner}, tmp_path / "w.pth")
    backbone = tiny().build()
    load_weights(backbone.trunk, tmp_path / "w.pth")
    assert equal(backbone.trunk, state)


def test_the_same_values_under_two_paths_have_one_digest(tmp_path, state):
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    digests = {tiny(str(tmp_path / name)).build().digest() for name in ("a.safetensors", "b.pth")}
    assert digests == {tiny(seed=9).build().digest()}


def test_a_state_in_memory_has_a_digest_of_its_values(state):
    backbone = tiny().build()
    first = load_weights(backbone.trunk, state, name="here")
    again = load_weights(backbone.trunk, dict(reversed(state.items())))
    assert (first.source, again.source) == ("here", "state dict")
    assert first.sha256 == again.sha256
    assert load_weights(backbone.trunk, state, sha256="of the file").sha256 == "of the file"
    assert (
        load_weights(backbone.trunk, state | {"conv1.0.weight": state["conv1.0.weight"] + 1}).sha256
        != first.sha256
    )


def test_a_trunk_without_layer4_serves_shallower_levels_and_is_refused_for_deeper(tmp_path, state):
    path = tmp_path / "trunk.safetensors"
    save_file({key: value for key, value in state.items() if not key.startswith("layer4")}, path)
    assert tiny(str(path), levels=("layer2", "layer3")).build().report.complete
    with pytest.raises(ValueError, match=r"missing: layer4 \(10\).*choose levels that the file has"):
        tiny(str(path)).build()


def test_stages_that_are_not_built_are_reported_as_not_used(state):
    backbone = tiny(levels=("layer2",)).build()
    report = load_weights(backbone.trunk, state)
    assert "not used: layer3 (12), layer4 (12)" in report.summary()


def test_counters_of_batches_may_be_missing(state):
    backbone = tiny().build()
    report = load_weights(backbone.trunk, {k: v for k, v in state.items() if "num_batches" not in k})
    assert report.complete


def test_weights_of_another_network_are_refused_and_change_nothing(state):
    backbone = tiny().build()
    before = {key: value.clone() for key, value in backbone.trunk.state_dict().items()}
    other = {f"blocks.{key}": value for key, value in state.items()}
    with pytest.raises(ValueError, match=r"0 tensors matched.*another network"):
        load_weights(backbone.trunk, other)
    with pytest.raises(ValueError, match=r"1 of another shape, the first bn1.weight: \(3,\), needed \(8,\)"):
        load_weights(backbone.trunk, state | {"bn1.weight": torch.zeros(3)})
    assert equal(backbone.trunk, before)


class Bomb:
    def __reduce__(self):
        return (print, ("boom",))


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, capsys):
    path = tmp_path / "bomb.pth"
    torch.save({"state_dict": Bomb()}, path)
    with pytest.raises(ValueError, match=r"bomb.pth is refused: it is damaged or could run code"):
        tiny(str(path)).build()
    path.write_bytes(pickle.dumps(Bomb(), protocol=2))
    with pytest.raises(ValueError, match="could run code"):
        tiny(str(path)).build()
    assert "boom" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("kept", [0, 50, 0.5])
def test_a_cut_off_file_is_refused(tmp_path, state, suffix, kept):
    path = tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=r"w\.(safetensors|pth) is (damaged|refused)"):
        tiny(str(path)).build()


def test_files_that_are_absent_of_another_kind_or_without_tensors_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no weight file at .*absent.pth: give the path"):
        tiny(str(tmp_path / "absent.pth")).build()
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"w.onnx: it must be a .safetensors"):
        tiny(str(tmp_path / "w.onnx")).build()
    for content in ({"epoch": 3}, [1, 2], {}):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(ValueError, match=r"w.pth holds no state dict but a (dict|list)"):
            tiny(str(tmp_path / "w.pth")).build()
