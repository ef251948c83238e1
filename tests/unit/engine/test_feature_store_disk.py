"""Disks that are full, broken or not there, and the budget: a row is whole, checked or in memory."""

import errno
import gc
import os
import shutil

import pytest
import torch

from fewseg.engine.features import RowFiles


def test_what_a_full_disk_has_no_room_for_stays_in_memory_with_a_warning(
    make_store, backbone, data, monkeypatch, caplog
):
    store, ids = make_store(), data.source.ids[:3]
    store.ensure(ids[:1], progress=False)
    with monkeypatch.context() as full:
        full.setattr("os.pwrite", lambda *_: 1)
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


def test_a_row_whose_bytes_changed_is_made_again_with_a_warning(make_store, backbone, data, caplog):
    ids = data.source.ids[:2]
    store = make_store()
    store.ensure(ids, [0], progress=False)
    before = store.features(ids)["layer3"]
    path = store.folder / "layer3.raw"
    size = path.stat().st_size // (2 * len(data.source.ids))
    with path.open("r+b") as file:
        file.seek(2 * size + 5)  # in the second image's row of view 0
        byte = file.read(1)
        file.seek(2 * size + 5)
        file.write(bytes([byte[0] ^ 16]))
    again = make_store()
    assert torch.equal(again.features(ids)["layer3"], before)
    assert f"row 2 of the feature cache {store.folder} is damaged" in caplog.text
    assert backbone.seen == 3
    caplog.clear()
    make_store().features(ids)
    assert not caplog.messages


@pytest.mark.parametrize("written", range(5))
def test_a_kill_at_any_moment_of_writing_a_row_leaves_no_row(
    make_store, backbone, data, monkeypatch, written
):
    """Columns, then the sum, then the mark that the row is done: 5 writes."""
    store, ids, moments = make_store(), data.source.ids[:1], []
    plain = RowFiles._write

    def killed(files, name, row, value):
        if len(moments) == written:
            raise KeyboardInterrupt
        moments.append(name)
        plain(files, name, row, value)

    with monkeypatch.context() as dying:
        dying.setattr(RowFiles, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            store.ensure(ids, [0], progress=False)
    assert moments == ["layer2", "layer3", "labels", "sums.raw", "done.raw"][:written]
    again = make_store()
    assert not again._files.has(0)
    again.ensure(ids, [0], progress=False)
    assert backbone.seen == 2
    direct = backbone(torch.stack([store.view(ids[0], 0)[0]]))
    torch.testing.assert_close(again.features(ids)["layer3"], direct["layer3"], atol=1e-5, rtol=1e-5)


def test_bytes_that_changed_places_are_found(make_store, backbone, data, caplog):
    ids = data.source.ids[:1]
    store = make_store()
    store.ensure(ids, [0], progress=False)
    before = store.features(ids)["layer3"].clone()
    path = store.folder / "layer3.raw"
    half = before.numel() * 4 // 2
    with path.open("r+b") as file:
        first, second = file.read(half), file.read(half)
        assert first != second
        file.seek(0)
        file.write(second + first)
    assert torch.equal(make_store().features(ids)["layer3"], before)
    assert "row 0 of the feature cache" in caplog.text
    assert backbone.seen == 2


def test_a_row_without_a_sum_is_made_again(make_store, backbone, data, caplog):
    ids = data.source.ids[:1]
    store = make_store()
    store.ensure(ids, [0], progress=False)
    path = store.folder / "sums.raw"
    path.write_bytes(bytes(path.stat().st_size))
    make_store().features(ids)
    assert "row 0 of the feature cache" in caplog.text
    assert backbone.seen == 2


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


@pytest.mark.parametrize("broken", ["place", "folder", "files"])
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
        monkeypatch.setattr(RowFiles, "_open", _no_space)
    store, ids = make_store(folder=place), data.source.ids[:3]
    assert [m for m in caplog.messages if "stay in memory" in m and "cannot be used" in m]
    with pytest.raises(ValueError, match="were not computed"):
        store.features(ids)
    store.ensure(ids, progress=False)
    store.ensure(ids, progress=False)
    assert backbone.seen == 6
    direct = backbone(torch.stack([store.view(id, 1)[0] for id in ids]))
    torch.testing.assert_close(store.features(ids, 1)["layer3"], direct["layer3"], atol=1e-5, rtol=1e-5)
    assert torch.equal(store.labels(ids, 1)[2], store.view(ids[2], 1)[1])
    assert len([m for m in caplog.messages if "stay in memory" in m]) == 1


def _no_space(*_):
    raise OSError(errno.ENOSPC, "no space left")


def test_stores_unused_for_longest_make_room_and_those_in_use_stay(make_store, data, monkeypatch):
    row = make_store()._row_bytes
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
    monkeypatch.setenv("FEWSEG_CACHE_BYTES", str(full + 60 * 1024 + 3 * row))
    make_store(seed=4).ensure(data.source.ids[:1], [0], progress=False)
    assert all(folder.exists() for folder in folders)
    make_store(seed=5).ensure(data.source.ids, progress=False)
    assert [folder.exists() for folder in folders] == [True, False, True]  # the oldest is in use
    monkeypatch.setenv("FEWSEG_CACHE_BYTES", "much")
    with pytest.raises(ValueError, match="FEWSEG_CACHE_BYTES is 'much': give a number of bytes"):
        make_store(seed=6).ensure(data.source.ids[:1], progress=False)


def _on_disk(folder):
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())
