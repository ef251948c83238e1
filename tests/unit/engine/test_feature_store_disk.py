"""Disks that are full, broken or not there, and the budget: a row is whole, checked or in memory."""

import errno
import gc
import os
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fewseg.engine import features


def test_what_a_full_disk_has_no_room_for_stays_in_memory_with_a_warning(
    make_store, backbone, data, monkeypatch, caplog
):
    store, ids = make_store(), data.source.ids[:3]
    store.ensure(ids[:1], progress=False)
    with monkeypatch.context() as full:
        full.setattr(features, "atomic_write_bytes", _no_space)
        store.ensure(ids, progress=False)
    assert backbone.seen == 6
    assert [m for m in caplog.messages if "stay in memory" in m and str(store.folder) in m]
    direct = backbone(torch.stack([store.view(id, 1)[0] for id in ids]))
    torch.testing.assert_close(store.features(ids, 1)["layer3"], direct["layer3"], atol=1e-5, rtol=1e-5)
    assert torch.equal(store.labels(ids, 1)[2], store.view(ids[2], 1)[1])
    again = make_store()
    assert again.features(ids[:1]).maps
    with pytest.raises(ValueError, match="were not computed"):
        again.features(ids[1:2])


def test_the_budget_is_a_limit_and_what_does_not_fit_stays_in_memory(
    make_store, backbone, data, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("FEWSEG_CACHE_BYTES", str(120_000))
    store, ids = make_store(), data.source.ids
    store.ensure(ids, progress=False)
    assert backbone.seen == 60
    assert 30_000 < _on_disk(store.folder) <= 120_000
    found = [message for message in caplog.messages if "stay in memory" in message]
    assert len(found) == 1
    assert "FEWSEG_CACHE_BYTES, 120000, leaves no room for them" in found[0]
    store.ensure(ids, progress=False)
    assert backbone.seen == 60
    direct = backbone(torch.stack([store.view(id, 1)[0] for id in ids]))
    torch.testing.assert_close(store.features(ids, 1)["layer3"], direct["layer3"], atol=1e-5, rtol=1e-5)
    assert torch.equal(store.labels(ids[-1:]), store.view(ids[-1], 0)[1][None])


@pytest.mark.parametrize("turned", ["claims", "room", "gone"])
def test_a_cache_that_turns_read_only_or_goes_leaves_memory_with_a_warning(
    make_store, backbone, data, monkeypatch, caplog, turned
):
    store, ids = make_store(), data.source.ids[:3]
    store.ensure(ids[:1], progress=False)
    if turned == "gone":
        shutil.rmtree(store.folder)
    elif turned == "claims":
        monkeypatch.setattr("pathlib.Path.open", _no_space)
    else:
        monkeypatch.setattr(features, "_locked", _no_space)
    store.ensure(ids, progress=False)
    assert [m for m in caplog.messages if "stay in memory" in m and "cannot be written" in m]
    monkeypatch.undo()
    direct = backbone(torch.stack([store.view(id, 1)[0] for id in ids]))
    torch.testing.assert_close(store.features(ids, 1)["layer3"], direct["layer3"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("broken", ["place", "folder", "full"])
def test_a_cache_that_cannot_be_used_leaves_memory_with_a_warning(
    make_store, backbone, data, tmp_path, monkeypatch, caplog, broken
):
    place = tmp_path / "cache"
    if broken == "place":
        place.write_text("a file where the folder should be")
    elif broken == "folder":
        name = make_store(folder=place).folder
        shutil.rmtree(name)
        name.write_text("a file where the store should be")
    else:  # a disk that is full when the store is opened
        monkeypatch.setattr("pathlib.Path.touch", _no_space)
    store, ids = make_store(folder=place), data.source.ids[:3]
    assert [m for m in caplog.messages if "stay in memory" in m and "cannot be written" in m]
    with pytest.raises(ValueError, match="were not computed"):
        store.features(ids)
    store.ensure(ids, progress=False)
    store.ensure(ids, progress=False)
    assert backbone.seen == 6
    direct = backbone(torch.stack([store.view(id, 1)[0] for id in ids]))
    torch.testing.assert_close(store.features(ids, 1)["layer3"], direct["layer3"], atol=1e-5, rtol=1e-5)
    assert torch.equal(store.labels(ids, 1)[2], store.view(ids[2], 1)[1])
    assert len([m for m in caplog.messages if "stay in memory" in m]) == 1


def test_stores_unused_for_longest_make_room_and_those_in_use_stay(make_store, data, monkeypatch):
    folders = []
    for seed in (1, 2, 3):
        store = make_store(seed=seed)
        store.ensure(data.source.ids, progress=False)
        folders.append(store.folder)
        os.utime(store.folder / "used", (seed, seed))
    used = make_store(seed=1)
    os.utime(used.folder / "used", (0, 0))
    del store
    gc.collect()
    full = sum(_on_disk(folder) for folder in folders)
    monkeypatch.setenv("FEWSEG_CACHE_BYTES", str(full + 10 * 4096))
    make_store(seed=4).ensure(data.source.ids[:1], [0], progress=False)
    assert all(folder.exists() for folder in folders)
    make_store(seed=5).ensure(data.source.ids, progress=False)
    assert [folder.exists() for folder in folders] == [True, False, True]  # the oldest is in use
    monkeypatch.setenv("FEWSEG_CACHE_BYTES", "much")
    with pytest.raises(ValueError, match="FEWSEG_CACHE_BYTES is 'much': give a number of bytes"):
        make_store(seed=6).ensure(data.source.ids[:1], progress=False)


def _on_disk(folder):
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def _no_space(*_, **__):
    raise OSError(errno.ENOSPC, "no space left")


def _cut(path, _):
    path.write_bytes(path.read_bytes()[:-1])


def _flip_a_bit(path, _):
    data = bytearray(path.read_bytes())
    data[-5] ^= 16
    path.write_bytes(data)


def _swap_bytes(path, _):
    data = path.read_bytes()
    first, second = data[-1000:-500], data[-500:]
    assert first != second
    path.write_bytes(data[:-1000] + second + first)


def _drop_the_checksum(path, _):
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path)


def _hide_a_pickle(path, pickled):
    path.write_bytes(pickled)


@pytest.mark.parametrize("damage", [_cut, _flip_a_bit, _swap_bytes, _drop_the_checksum, _hide_a_pickle])
def test_a_damaged_file_is_made_again_with_a_warning_and_runs_no_code(
    make_store, backbone, data, malicious, caplog, damage
):
    ids, (pickled, mark) = data.source.ids[:2], malicious
    store = make_store()
    store.ensure(ids, [0], progress=False)
    before = {level: maps.clone() for level, maps in store.features(ids).maps.items()}
    damage(store.folder / "2.safetensors", pickled.read_bytes())
    again = make_store()
    assert all(torch.equal(again.features(ids)[level], maps) for level, maps in before.items())
    assert f"{store.folder / '2.safetensors'} is damaged" in caplog.text
    assert backbone.seen == 3
    assert not mark.exists()
    caplog.clear()
    make_store().features(ids)
    assert not caplog.messages


@pytest.mark.parametrize("moment", ["pathlib.Path.write_bytes", "os.replace"])
def test_a_kill_while_a_row_is_written_leaves_no_row(make_store, backbone, data, monkeypatch, moment):
    def kill(*_):
        raise KeyboardInterrupt

    store, ids = make_store(), data.source.ids[:1]
    with monkeypatch.context() as dying:
        dying.setattr(moment, kill)
        with pytest.raises(KeyboardInterrupt):
            store.ensure(ids, [0], progress=False)
    again = make_store()
    with pytest.raises(ValueError, match="were not computed"):
        again.features(ids)
    again.ensure(ids, [0], progress=False)
    assert backbone.seen == 2


def test_rows_that_other_processes_write_meanwhile_count_in_the_budget(make_store, data, monkeypatch):
    monkeypatch.setattr(features, "_RECOUNT", 1)
    monkeypatch.setenv("FEWSEG_CACHE_BYTES", str(10 * 4096))
    store, ids = make_store(), data.source.ids
    compute = store._compute

    def crowded(rows, **left):
        compute(rows, **left)
        (store.folder / "of another process").write_bytes(bytes(7 * 4096))

    monkeypatch.setattr(store, "_compute", crowded)
    store.ensure(ids, [0], progress=False)
    assert len(list(store.folder.glob("*.safetensors"))) == 3


def test_stores_of_killed_runs_make_room_before_stores_that_are_used_again(make_store, data, monkeypatch):
    make_store().ensure(data.source.ids[:1], [0], progress=False)
    kept = make_store().folder
    gc.collect()
    left = kept.with_name("temporary-of-a-killed-run")
    shutil.copytree(kept, left)
    os.utime(kept / "used", (1, 1))
    monkeypatch.setenv("FEWSEG_CACHE_BYTES", str(2 * 4096))
    make_store(seed=1).ensure(data.source.ids[:1], [0], progress=False)
    assert (kept.exists(), left.exists()) == (True, False)
