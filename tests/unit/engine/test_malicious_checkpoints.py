"""Weights from a stranger: pickles in every disguise, and headers that promise what is not there."""

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fewseg.backbones import read_state
from fewseg.engine.checkpoint import Checkpoint, load_checkpoint, read_checkpoint, save_checkpoint
from fewseg.engine.config_json import config_from_json
from fewseg.engine.released import import_checkpoint, import_released
from fewseg.inference.supports import load_supports
from fewseg.methods.pfenet import PFENetConfig
from memory import growth
from small_segmenters import model, tiny, tiny_checkpoint, with_squares


class RunsCode:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def zipped(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("archive/data.pkl", content)
        out.writestr("archive/version", "3\n")
    return file.getvalue()


def tarred(content):
    """As torch wrote it before 2017: pickles in a tar."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as out:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return file.getvalue()


def saved_by_torch(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def behind_a_header(content):
    """A pickle as the data of a safetensors file."""
    header = json.dumps({"a": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}})
    return struct.pack("<Q", len(header)) + header.encode() + content


DISGUISES = {
    **{f"protocol {k}": lambda value, k=k: pickle.dumps(value, protocol=k) for k in range(6)},
    "zip of torch": saved_by_torch,
    "stream of torch": lambda value: saved_by_torch(value, _use_new_zipfile_serialization=False),
    "bare zip": lambda value: zipped(pickle.dumps(value)),
    "tar of old torch": lambda value: tarred(pickle.dumps(value)),
    "gzip": lambda value: gzip.compress(pickle.dumps(value)),
    "behind a header": lambda value: behind_a_header(pickle.dumps(value)),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_no_pickle_is_opened_whatever_it_looks_like(tmp_path, disguise, name):
    mark, path = tmp_path / "the code ran", tmp_path / name
    path.write_bytes(DISGUISES[disguise]({"state_dict": RunsCode(str(mark))}))
    with pytest.raises(ValueError, match=name):
        read_checkpoint(path)
    with pytest.raises(ValueError, match=name):
        load_checkpoint(path)
    with pytest.raises(ValueError, match=name):
        load_supports(path, model())
    with pytest.raises(ValueError, match=name):
        import_checkpoint(path, tmp_path / "new.safetensors")
    assert not mark.exists()
    assert not (tmp_path / "new.safetensors").exists()


def tensor(shape, offsets, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HUGE = 2**40
LITTLE = 64 * 2**20  # bytes
HEADERS = {
    "overlapping tensors": {"a": tensor([4], [0, 16]), "b": tensor([4], [8, 24])},
    "one tensor twice": {"a": tensor([4], [0, 16]), "b": tensor([4], [0, 16])},
    "a hole": {"a": tensor([1], [0, 4]), "b": tensor([1], [100, 104])},
    "sizes beyond the file": {"a": tensor([HUGE], [0, 4 * HUGE])},
    "sizes that overflow": {"a": tensor([HUGE, HUGE], [0, 0])},
    "sizes of nothing": {"a": tensor([HUGE, 0], [0, 4])},
    "a negative size": {"a": tensor([-4], [0, 16])},
    "a size that is no number": {"a": tensor([float("nan")], [0, 16])},
    "an infinite size": {"a": tensor([float("inf")], [0, 16])},
    "offsets backwards": {"a": tensor([4], [16, 0])},
    "an unknown kind": {"a": tensor([4], [0, 16], "O64")},
    "no offsets": {"a": {"dtype": "F32", "shape": [4]}},
    "metadata of other kinds": {"__metadata__": {"fewseg": {"a": [1]}}, "a": tensor([4], [0, 16])},
}


def refused(path):
    for read in (read_checkpoint, load_checkpoint, lambda path: load_supports(path, model())):
        with pytest.raises(ValueError, match=path.name) as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_lies_is_refused_before_memory_is_taken(tmp_path, kind):
    header = json.dumps(HEADERS[kind]).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(32))
    assert growth(lambda: refused(path)) < LITTLE


@pytest.mark.parametrize("length", [2**31, 2**63, 2**64 - 1, 100, 0])
def test_a_header_of_any_stated_length_is_refused_before_memory_is_taken(tmp_path, length):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    assert growth(lambda: refused(path)) < LITTLE


def test_a_sparse_file_with_a_header_of_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2**31))
        file.truncate(2**31 + 8)  # holes: it takes no room on the disk
    assert growth(lambda: refused(path)) < LITTLE


def edited(tmp_path, change):
    """A checkpoint of one scale with a changed config, and other tensors."""
    path = tmp_path / "a.safetensors"
    config = replace(tiny(PFENetConfig()), scales=(1.0,))
    save_checkpoint(path, config.build().eval(), Checkpoint(config=config), whole=True)
    with safe_open(path, framework="pt") as file:
        tensors, text = {k: file.get_tensor(k) for k in file.keys()}, json.loads(file.metadata()["fewseg"])  # noqa: SIM118
    change(text, tensors)
    save_file(tensors, path, metadata={"fewseg": json.dumps(text)})
    return path


@pytest.mark.parametrize("channels", [10**9, 1e300, -1])
def test_a_config_that_asks_for_more_than_the_file_holds_is_refused(tmp_path, channels):
    def read():
        with pytest.raises(ValueError, match=path.name):
            load_checkpoint(path)

    path = edited(tmp_path, lambda text, _: text["config"].update(channels=channels))
    assert growth(read) < LITTLE


def test_a_config_whose_large_tensors_are_not_in_the_file_is_refused_before_memory_is_taken(tmp_path):
    def widen(text, tensors):
        text["config"].update(channels=2500)
        with torch.device("meta"):
            shapes = {k: v.shape for k, v in config_from_json(text["config"]).build().state_dict().items()}
        for key in [k for k in tensors if shapes[k.removeprefix("model.")] != tensors[k].shape]:
            del tensors[key]

    def read():
        with pytest.raises(ValueError, match=r"a\.safetensors does not fit PFENet: missing \['\w+"):
            load_checkpoint(path)

    path = edited(tmp_path, widen)
    assert growth(read) < LITTLE


def test_a_trunk_that_is_not_in_the_file_is_not_a_random_one(tmp_path):
    def cut(_, tensors):
        for key in [k for k in tensors if k.startswith("model.backbone.")]:
            del tensors[key]

    with pytest.raises(ValueError, match=r"does not fit PFENet: missing \['backbone\."):
        load_checkpoint(edited(tmp_path, cut))


def test_tensors_that_no_config_has_are_refused_before_they_are_read(tmp_path):
    path = tiny_checkpoint(tmp_path / "a.safetensors")
    enlarged(path, "model.more")

    def read():
        with pytest.raises(ValueError, match=r"missing \[\], unexpected \['more'\]"):
            load_checkpoint(path)

    assert growth(read) < LITTLE


def enlarged(path, key, size=2**27):
    """Gives a file a large tensor of zeros, as a hole, which takes no room on the disk."""
    raw = path.read_bytes()
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    header, end = json.loads(raw[8:start]), len(raw) - start
    if key in header:
        header[f"before.{key}"] = header[key]
    header[key] = tensor([size], [end, end + size], "U8")
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + raw[start:])
    os.truncate(path, path.stat().st_size + size)


@pytest.mark.parametrize(
    ("key", "message"), [("more", None), ("masks.0.0", r"a mask of 'square' of \(.*, got \(134217728,\)")]
)
def test_a_support_set_is_read_by_what_it_must_hold(tmp_path, key, message):
    supports = with_squares(shots=1)
    path = tmp_path / "a.safetensors"
    supports.save_supports(path)
    enlarged(path, key)

    def read():
        with nullcontext() if message is None else pytest.raises(ValueError, match=message):
            assert load_supports(path, model()).classes == ("square",)

    assert growth(read) < LITTLE


class Made:
    """What a pickle makes without values of its own."""

    def __init__(self, *shape):
        self.shape = shape

    def __reduce__(self):
        return torch.Tensor, self.shape


def released(d):
    """The start of a PFENet's state dict, whose width is that of a weight."""
    value = torch.zeros(1)
    names = ("cls.0.weight", "down_supp.0.weight", "layer0.0.weight")
    names += tuple(f"layer3.{k}.conv3.weight" for k in range(6))
    names += tuple(f"init_merge.{k}.0.weight" for k in range(4))
    return {**dict.fromkeys(names, value), "down_query.0.weight": d}


WIDTHS = {
    "expanded": (torch.zeros(1).expand(4_000_000, 1536, 1, 1), "must be a dense tensor"),
    "sparse": (
        torch.sparse_coo_tensor(size=(4_000_000, 1536, 1, 1), check_invariants=True),
        "must be a dense tensor",
    ),
    "without values": (torch.zeros(4_000_000, 1536, 1, 1, device="meta"), "must be a dense tensor"),
    "made": (Made(400_000, 1536, 1, 1), "is larger than the file"),
    "wide": (torch.zeros(3000, 1, 1, 1), "of another shape"),
    "no width": (torch.zeros(0, 1, 1, 1), r"must be the weight \(D, C, h, w\) of a convolution"),
    "a number": (torch.tensor(1.0), r"must be the weight \(D, C, h, w\) of a convolution, got \(\)"),
    "absent": (None, r"must be the weight \(D, C, h, w\) of a convolution, got None"),
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize("kind", WIDTHS)
def test_a_shape_in_a_released_file_takes_no_memory_before_all_shapes_fit(tmp_path, kind):
    width, message = WIDTHS[kind]
    path = tmp_path / "a.pth"
    torch.save({**released(width), "down_query.0.bias": torch.zeros(1)}, path)

    def read():
        with pytest.raises(ValueError, match=message) as caught:
            import_checkpoint(path, tmp_path / "new.safetensors")
        assert "\n" not in str(caught.value)

    assert growth(read) < LITTLE


def test_a_state_dict_in_memory_is_looked_at_before_its_digest_is_taken():
    def read():
        with pytest.raises(ValueError, match="must be a dense tensor"):
            import_released(released(WIDTHS["expanded"][0]))

    assert growth(read) < LITTLE


@pytest.mark.parametrize("key", ["se_supp.0.weight", "init_merge.0.0.weight"])
def test_a_number_in_place_of_a_weight_that_is_renamed_is_of_another_shape(key):
    parts = dict.fromkeys(("se_supp.0.weight", "simple_mask.0.weight"), torch.zeros(1))
    with pytest.raises(ValueError, match="of another shape"):
        import_released({**released(torch.zeros(8, 1, 1, 1)), **parts, key: torch.tensor(1.0)})


def test_an_archive_whose_parts_are_compressed_is_not_unpacked(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(4 * LITTLE // 4)}, tmp_path / "whole.pth")
    with (
        zipfile.ZipFile(tmp_path / "whole.pth") as whole,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for name in whole.namelist():
            out.writestr(name, whole.read(name))

    def read():
        with pytest.raises(ValueError, match=r"a\.pth .*its parts are compressed"):
            read_state(path)

    assert growth(read) < LITTLE


def test_the_right_file_is_still_read(tmp_path):
    assert load_checkpoint(tiny_checkpoint(tmp_path / "a.safetensors"))


def test_memory_that_is_taken_after_a_higher_peak_is_seen():
    assert growth(lambda: b"x" * (4 * LITTLE)) > 3 * LITTLE
    assert growth(lambda: b"x" * (2 * LITTLE)) > LITTLE
