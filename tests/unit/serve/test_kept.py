"""Pages that are kept in a folder: a server that starts again finds all that the one before has answered."""

import os
import shutil

import numpy as np
import pytest

from fewseg.ops.files import folder_alone
from fewseg.serve import kept
from fewseg.serve.app import create_app
from fewseg.serve.limits import Limits
from fewseg.serve.server import ServeOptions, serve
from serve_page import Page, png, refusal
from small_segmenters import model, picture


def opened(folder, limits=None):
    """A page of a new server on the folder."""
    return Page(create_app(model(), limits or Limits(), hosts=("127.0.0.1",), keep=folder))


def again(page, folder, limits=None):
    """The same page at the next server; the one before has just ended, as by a kill."""
    other = opened(folder, limits)
    other.http.delete("/api/session")
    other.http.headers["X-Fewseg-Session"] = page.opened["token"]
    other.opened, other.ids = page.opened, page.ids
    return other


@pytest.fixture
def page(tmp_path):
    """A page with two images of 8 bits and two of 16, a support and an accepted mask, and a removed image."""
    page = opened(tmp_path)
    image, mask = picture(0)
    ids = [page.image(image, "one.png"), page.image(picture(9, hw=(60, 40))[0], "two é.png")]
    deep = picture(3)[0][..., 0].astype(np.uint16)
    first = page.image(png(deep * 7 + 50), "deep.png")  # its range holds for the other
    ids += [page.image(png(deep * 99), "deeper.png"), first]
    page.add_class("square")
    page.add_class("other")
    page.settle(ids[0], mask)
    page.settle(ids[1], np.full((60, 40), 2, np.uint8), role="accepted")
    page.http.delete(f"/api/images/{page.image(picture(5)[0], 'gone.png')}")
    page.ids = ids
    return page


def shown(page):
    """All that a user sees of a page."""
    state = page.state()
    left_out = ("undoable", "redoable", "version", "bytes")
    masks = [page.labels(id).tobytes() for id in page.ids]
    files = [
        page.http.get(f"/api/images/{id}/{kind}").content for id in page.ids for kind in ("file", "picture")
    ]
    small = [page.http.get(f"/api/images/{id}/picture", params={"small": True}).content for id in page.ids]
    return {k: v for k, v in state.items() if k not in left_out}, masks, files, small


def test_a_page_is_the_same_at_the_next_server(page, tmp_path):
    wanted, version = shown(page), page.state()["version"]
    assert [len(wanted[0][k]) for k in ("images", "classes")] == [4, 2]
    other = again(page, tmp_path)
    assert shown(other) == wanted
    assert other.state()["version"] > version  # what the page has kept of predictions is asked for anew


def test_work_goes_on_at_the_next_server(page, tmp_path):
    edits = {image["id"]: image["edit"] for image in page.state()["images"]}
    other = again(page, tmp_path)
    mask = np.ones((60, 40), np.uint8)
    answer = other.settle(page.ids[1], mask, role="accepted", edit=edits[page.ids[1]])
    assert answer.status_code == 200
    assert answer.json()["edit"] > max(edits.values())
    assert other.http.post("/api/undo").status_code == 200
    assert (other.labels(page.ids[1]) == 2).all()
    other.ids = [*page.ids, other.image(picture(6)[0], "one.png")]
    assert [image["name"] for image in other.state()["images"]][-1] == "one (2).png"
    assert shown(again(other, tmp_path)) == shown(other)


def test_the_first_class_is_kept(tmp_path):
    page = opened(tmp_path)
    page.add_class("square")
    page.ids = []
    assert again(page, tmp_path).state()["classes"] == ["square"]


def test_a_mask_counts_as_saved_when_the_disk_has_it(page, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    edit, mask = page.state()["images"][1]["edit"], np.ones((60, 40), np.uint8)
    with monkeypatch.context() as patch:
        patch.setattr(kept, "atomic_write_bytes", full)
        for _ in range(2):  # the second time the mask is in memory already
            assert "could not write" in refusal(
                page.settle(page.ids[1], mask, role="accepted", edit=edit), 507
            )
    assert page.settle(page.ids[1], mask, role="accepted", edit=edit).status_code == 200
    assert (again(page, tmp_path).labels(page.ids[1]) == 1).all()


def test_the_folder_has_what_is_needed_and_nobody_else_reads_it(page, tmp_path):
    (folder,) = tmp_path.iterdir()
    assert page.opened["token"] not in folder.name
    assert folder.stat().st_mode & 0o077 == 0
    endings = sorted(file.suffix for file in folder.iterdir())
    assert endings == [".image"] * 4 + [".jpg"] * 4 + [".json"] + [".png"] * 2
    page.http.delete("/api/session")
    assert not any(tmp_path.iterdir())


def test_pages_that_nobody_has_used_for_long_go(page, tmp_path):
    (folder,) = tmp_path.iterdir()

    def pages():
        return create_app(model(), Limits(idle_seconds=50), keep=tmp_path).state.pages

    os.utime(folder, (0, 0))
    using = pages()
    using.get(page.opened["token"])
    pages().sweep_kept()
    assert folder.exists()
    os.utime(folder, (0, 0))
    using.sweep_kept()  # it is open there
    assert folder.exists()
    pages().sweep_kept()
    assert not folder.exists()


def test_idle_time_counts_only_while_a_server_runs(page, tmp_path):
    (folder,) = tmp_path.iterdir()
    os.utime(folder, (0, 0))
    with opened(tmp_path).http as started:
        started.app.state.pages.sweep_kept()
        assert folder.exists()


def test_only_pages_are_removed_or_touched(page, tmp_path):
    (own,) = tmp_path.iterdir()
    foreign = [tmp_path / name for name in ("holiday", "copy", "0" * 32, "1" * 32, "f" * 32)]
    for folder in foreign:
        (folder / "inner").mkdir(parents=True)
    shutil.copy(own / "page.json", foreign[1])
    (foreign[2] / "one.jpg").touch()
    (foreign[3] / "page.json").write_text('{"classes": [], "title": "mine"}')
    found = sorted(tmp_path.rglob("*"))
    for folder in (own, *foreign):
        os.utime(folder, (0, 0))
    with opened(tmp_path).http:  # its start renews
        assert own.stat().st_mtime > 0
        assert all(folder.stat().st_mtime == 0 for folder in foreign)
    os.utime(own, (0, 0))
    create_app(model(), Limits(idle_seconds=50), keep=tmp_path).state.pages.sweep_kept()
    assert sorted(tmp_path.rglob("*")) == [file for file in found if own not in (file, file.parent)]


def test_what_a_kill_leaves_of_a_page_is_removed(page, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    def swept():
        for folder in tmp_path.iterdir():
            os.utime(folder, (0, 0))
        create_app(model(), Limits(idle_seconds=50), keep=tmp_path).state.pages.sweep_kept()

    (folder,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(
            kept.Path, "unlink", lambda file: killed() if file.name == "page.json" else os.unlink(file)
        )
        with pytest.raises(KeyboardInterrupt):
            kept.KeptPage(folder).remove()
    assert [file.name for file in folder.iterdir()] == ["page.json"]
    fresh = kept.KeptPages(tmp_path).page("fresh")
    with monkeypatch.context() as patch:
        patch.setattr(kept, "atomic_write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            fresh.write({"classes": [], "images": [], "version": 0, "next": [0, 1]}, {"a.image": b"1"})
    assert len(list(tmp_path.iterdir())) == 2
    swept()
    assert not any(tmp_path.iterdir())


def test_a_folder_of_other_things_is_refused(page, tmp_path, monkeypatch):
    monkeypatch.setattr("fewseg.inference.model.load_model", None)  # a server that is not refused ends too
    other = tmp_path / "other"
    (other / "photos").mkdir(parents=True)
    with pytest.raises(
        ValueError, match=f"--keep must be an empty folder.*: {other} has photos; give"
    ) as found:
        serve(ServeOptions(port=0, keep=other), print)
    assert "\n" not in str(found.value)
    kept.KeptPages(tmp_path).check()  # it has a page beside
    (other / "photos").rename(other / ".hidden")
    kept.KeptPages(other).check()


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"images": [{}]}', b"[" * 9999])
def test_a_page_that_is_broken_on_the_disk_is_one_that_is_unknown(page, tmp_path, caplog, content):
    (folder,) = tmp_path.iterdir()
    (folder / "page.json").write_bytes(content)
    assert "the session is unknown" in refusal(again(page, tmp_path).http.get("/api/session"), 401)
    assert f"the page in {folder} cannot be opened again" in caplog.text


def test_a_full_server_opens_no_page_again(page, tmp_path):
    other = opened(tmp_path, Limits(sessions=1))
    other.image(picture(0)[0])
    token = {"X-Fewseg-Session": page.opened["token"]}
    assert "may have 1 sessions" in refusal(other.http.get("/api/session", headers=token), 503)
    other.http.delete("/api/session")
    assert other.http.get("/api/session", headers=token).status_code == 200
    shutil.rmtree(tmp_path)
    assert other.http.get("/api/session", headers={"X-Fewseg-Session": "../x"}).status_code == 401


def test_two_servers_on_one_folder_are_refused(tmp_path):
    with (
        folder_alone(tmp_path),
        pytest.raises(ValueError, match=f"another server keeps its pages in {tmp_path}"),
    ):
        serve(ServeOptions(port=0, keep=tmp_path), print)
