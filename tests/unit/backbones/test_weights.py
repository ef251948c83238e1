"""Weight files: what is read, renamed, reported and refused; published weights."""

import hashlib
import pickle
import socket
import threading
import zipfile

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from fewseg.backbones import BackboneConfig, ResNetShape, load_weights
from fewseg.backbones import weights as weight_files
from fewseg.backbones.weights import download, normalisation, published_name, to_timm_names

TINY = ResNetShape(layers=(1, 1, 1, 1), channels=(8, 8, 8, 8), stem_width=4)


def tiny(weights=None, **settings):
    return BackboneConfig(name="resnet18", weights=weights, shape=TINY, **settings)


@pytest.fixture
def state():
    return tiny(seed=9).build().trunk.state_dict()


def equal(module, state):
    return all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


def wrapped(content):
    return {"epoch": 3, "model": {"state_dict": content}}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrap", [dict, wrapped])
def test_a_file_is_loaded_and_reported(tmp_path, state, suffix, prefix, wrap):
    path = tmp_path / f"weights{suffix}"
    content = {prefix + key: value for key, value in state.items()} | {f"{prefix}fc.weight": torch.zeros(2)}
    save_file(content, path) if suffix == ".safetensors" else torch.save(wrap(content), path)
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
    with pytest.raises(
        ValueError, match=r"missing: layer4 \(10\).*give --backbone-weights a file that has them"
    ):
        tiny(str(path)).build()


def test_weights_of_another_network_are_refused_and_change_nothing(state):
    backbone = tiny().build()
    before = {key: value.clone() for key, value in backbone.trunk.state_dict().items()}
    other = {f"blocks.{key}": value for key, value in state.items()}
    with pytest.raises(ValueError, match=r"0 tensors matched.*another network"):
        load_weights(backbone.trunk, other)
    with pytest.raises(ValueError, match=r"1 of another shape, the first bn1.weight: \(3,\), needed \(8,\)"):
        load_weights(backbone.trunk, state | {"bn1.weight": torch.zeros(3)})
    assert equal(backbone.trunk, before)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_values_that_are_no_floats_are_refused(state, dtype):
    backbone = tiny().build()
    with pytest.raises(ValueError, match=rf"^state dict: bn1.weight must be of floats, got {dtype}$"):
        load_weights(backbone.trunk, state | {"bn1.weight": torch.ones(8, dtype=dtype)})
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        load_weights(backbone.trunk, {key: value.to(kind) for key, value in state.items()})


def test_stages_that_are_not_built_are_not_used_and_counters_of_batches_may_be_missing(state):
    backbone = tiny(levels=("layer2",)).build()
    report = load_weights(backbone.trunk, {k: v for k, v in state.items() if "num_batches" not in k})
    assert report.complete
    assert "not used: layer3 (10), layer4 (10)" in report.summary()


@pytest.mark.parametrize(
    "pickled",
    [b"\x80\x02X\x01\0\0\0\x85.", b"\x80\x02K\x01Q.", b"\x80\x02N(u.", b"\x80\x02J\x01", b"\x80\x02X\x01"],
    ids=["tuple", "place", "items", "number", "text"],
)
def test_a_pickle_that_is_damaged_is_one_line(tmp_path, state, pickled):
    torch.save(state, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(tmp_path / "a.pth", "w") as out:
        for name in whole.namelist():
            out.writestr(name, pickled if name.endswith("data.pkl") else whole.read(name))
    with pytest.raises(ValueError, match=r"^a.pth is (damaged or cut off|refused).*$"):
        tiny(str(tmp_path / "a.pth")).build()


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


DEEP = ("conv1.0", "conv1.1", "conv1.3", "conv1.4", "conv1.6", "bn1")


def timm_state(name):
    backbone = BackboneConfig(name=name, weights=None, levels=("layer1",)).build()
    return backbone.trunk.state_dict()


def renamed(state, names):
    out = {}
    for key, value in state.items():
        head = next((name for name in names if key.startswith(f"{name}.")), None)
        out[names[head] + key.removeprefix(head) if head else key] = value
    return out


def same(first, second):
    return first.keys() == second.keys() and all(first[key] is second[key] for key in first)


LAYER0 = ("layer0.0", "layer0.1", "layer0.3", "layer0.4", "layer0.6", "layer0.7")


@pytest.mark.parametrize(
    ("network", "given"),
    [
        ("resnet50s", dict(zip(DEEP, LAYER0, strict=True))),
        ("resnet50", {"conv1": "layer0.0", "bn1": "layer0.1"}),
        ("resnet50s", dict(zip(DEEP, ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3"), strict=True))),
        ("resnet50", {}),
    ],
    ids=["released deep stem", "released plain stem", "flat deep stem", "timm"],
)
def test_other_names_of_the_stem_become_timms(network, given):
    state = timm_state(network)
    other = renamed(state, given)
    assert same(other, state) == (not given)
    assert same(to_timm_names(other), state)


def test_mean_and_std_are_those_of_the_published_weights():
    assert normalisation(None) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert normalisation("resnet34.ra4_e3600_r224_in1k") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_a_bare_name_stands_for_torchvisions_first_weights_and_a_deep_stem_for_timms():
    names = {"resnet50": "resnet50.tv_in1k", "vgg16_bn": "vgg16_bn.tv_in1k"}
    for name, published in (names | {n: n for n in ("resnet50s", "resnet50.a1_in1k")}).items():
        assert published_name(name) == published
    with pytest.raises(
        ValueError, match=r"no weights are published for backbone 'resnet200'.*None for random"
    ):
        published_name("resnet200")


@pytest.fixture
def timm_gives(monkeypatch, tmp_path):
    """Has timm call a function in place of a download, with an empty cache and a network."""
    build = timm.create_model
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(weight_files, "unreachable", lambda url: "")

    def give(published):
        def create(name, pretrained=False, **settings):
            return published(name) if pretrained else build(name, pretrained=False, **settings)

        monkeypatch.setattr(timm, "create_model", create)

    return give


def test_imagenet_weights_are_asked_of_timm_by_name_and_loaded(timm_gives):
    published, asked = timm.create_model("resnet18"), []
    torch.nn.init.constant_(published.bn1.running_mean, 0.25)
    timm_gives(lambda name: asked.append(name) or published)
    backbone = BackboneConfig(name="resnet18").build()
    assert asked == [backbone.report.source] == ["resnet18.tv_in1k"]
    assert backbone.report.ignored == ("fc.weight", "fc.bias")
    assert equal(backbone.trunk, published.state_dict())


def test_unreachable_weights_are_an_error_that_says_what_to_do(timm_gives):
    def unreachable(name):
        raise FileNotFoundError("no network")

    timm_gives(unreachable)
    with pytest.raises(ValueError, match=r"could not be downloaded \(no network\).*--backbone-weights model"):
        BackboneConfig(name="resnet18").build()


def test_without_a_network_nothing_is_downloaded_and_the_file_to_copy_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("timm was called"))
    with pytest.raises(ValueError, match=r"no connection to http://127\.0\.0\.1:9: .*refused") as found:
        download("resnet18.tv_in1k")
    assert "`curl -LO http://127.0.0.1:9/timm/resnet18.tv_in1k/resolve/main/model.saf" in str(found.value)


def test_a_server_that_does_not_answer_is_waited_for_once():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        why = weight_files.unreachable(url, seconds=0.2)  # both clocks are set to the same time
        assert why.startswith((f"no answer from {url} in 0.2 s", f"no connection to {url}: timed out"))


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found"])
def test_any_answer_shows_a_network(status):
    def answer(server):
        with server.accept()[0] as connection:
            connection.recv(1024)
            connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        assert weight_files.unreachable(f"http://127.0.0.1:{server.getsockname()[1]}") == ""


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_cached_file_is_loaded_without_asking_the_network(monkeypatch, tmp_path, file):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(weight_files, "unreachable", lambda url: pytest.fail("the network was asked"))
    published = timm.create_model("resnet18").state_dict()
    folder = tmp_path / "models--timm--resnet18.tv_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc").mkdir(parents=True)
    save = save_file if file.endswith(".safetensors") else torch.save
    save(published, folder / "snapshots/abc" / file)
    found = download("resnet18.tv_in1k")
    assert found.keys() == published.keys()
    assert all(torch.equal(found[key], published[key]) for key in published)
