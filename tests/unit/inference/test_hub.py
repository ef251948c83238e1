"""Segmenters as folders, and as repositories of a stand-in for the Hugging Face hub."""

import hashlib
import json
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants

from fewseg.engine.checkpoint import Checkpoint
from fewseg.inference import Segmenter, Tiles
from fewseg.inference.hub import CARD, MODEL, SETTINGS, SUPPORTS
from fewseg.types import DataError
from result_files import make_counts, make_result
from small_segmenters import model, picture, segmenter, with_squares

COMMIT = "0" * 40


@pytest.mark.parametrize("name", ["matcher", "pfenet", "fitted"])
def test_a_saved_segmenter_gives_the_same_masks(name, tmp_path):
    it = with_squares(name)
    it.save_pretrained(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == sorted(
        [MODEL, SETTINGS, SUPPORTS, CARD]
    )
    found = Segmenter.from_pretrained(tmp_path / "saved")
    assert found.classes == it.classes
    assert found.model.digest == it.model.digest
    image, _ = picture(9)
    pair = [each.segment(image, quality=False) for each in (found, it)]
    # the loaded one is in channels-last layout, whose sums differ in the last bits
    np.testing.assert_allclose(pair[0].probability, pair[1].probability, atol=1e-4)


def test_tiles_and_the_absence_of_supports_come_back(tmp_path):
    it = segmenter("matcher", views=Tiles(side=60, overlap=0.1))
    with_squares().save_pretrained(tmp_path)
    it.save_pretrained(tmp_path)  # in the place of one with supports
    found = Segmenter.from_pretrained(tmp_path)
    assert found.model.views == it.model.views
    assert (found.classes, found.model.size) == ((), it.model.size)
    assert "It has no annotated examples" in (tmp_path / CARD).read_text()


def test_supports_that_were_saved_without_a_model_are_not_replaced(tmp_path):
    it = with_squares()
    it.save_supports(tmp_path / "supports.safetensors")
    before = (tmp_path / "supports.safetensors").read_bytes()
    for one in (segmenter(), it):
        with pytest.raises(ValueError, match=r"holds a supports\.safetensors and no .*: give another folder"):
            one.save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["supports.safetensors"]
    assert (tmp_path / "supports.safetensors").read_bytes() == before


def test_the_card_states_method_classes_training_and_the_scores_of_this_checkpoint(tmp_path):
    it = with_squares("pfenet")
    split = {"name": "pascal-5i", "fold": 2, "base": [1], "novel": [11, 12]}
    about = {"recipe": "voc5i_mini_pfenet", "dataset": "voc5i-mini", "class_split": split, "digest": "abc"}
    it.model.about = Checkpoint(config=it.model.config, **about)
    counts = make_counts()
    for name, digest in (("own", "abc"), ("other", "def")):
        result = make_result(counts, training={"checkpoint": digest, "seed": 0}, method=name)
        result.save(tmp_path / "results" / f"{name}.json", counts)
    it.save_pretrained(tmp_path / "saved", licence="apache-2.0", results=tmp_path / "results")
    it.model.about = None
    text = (tmp_path / "saved" / CARD).read_text()
    assert text.startswith("---\nlicense: apache-2.0\nlibrary_name: fewseg\n")
    assert "pfenet on resnet18, input 65 x 65 pixels" in text
    assert "annotated examples of: square" in text
    assert 'Segmenter.from_pretrained("saved")' in text
    assert "Trained on voc5i-mini fold 2 by the recipe `voc5i_mini_pfenet`; the classes 11, 12" in text
    rows = [line for line in text.splitlines() if line.startswith("| voc5i-mini fold 0")]
    assert len(rows) == 1
    assert f"{100 * result.miou_mean:.1f} [" in rows[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 9}, "schema 9, this version reads up to 1: update fewseg"),
        ({"size": "65"}, "no valid size"),
        ({"views": {"type": "Path"}}, "names the class 'Path'"),
        ({"fusion": "vote"}, "Matcher cannot use the fusion 'vote'"),
        ({"chooses": None, "name": 3}, "no valid name, chooses"),
        ("[" * 100_000, "cannot be read .it is nested too deeply"),
        ("[]", "no valid schema"),
        ("{", "cannot be read"),
    ],
)
def test_broken_settings_are_reported(tmp_path, change, message):
    segmenter().save_pretrained(tmp_path)
    path = tmp_path / SETTINGS
    path.write_text(change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        Segmenter.from_pretrained(tmp_path)


class RunsCode:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_folder_with_a_pickle_alone_is_refused_and_its_code_does_not_run(tmp_path):
    pickled = pickle.dumps({"state_dict": RunsCode(tmp_path / "the code ran")})
    (tmp_path / "saved").mkdir()
    for name in ("pytorch_model.bin", "model.pt"):
        (tmp_path / "saved" / name).write_bytes(pickled)
    with pytest.raises(DataError, match="pickles above all, are never opened"):
        Segmenter.from_pretrained(tmp_path / "saved")
    segmenter().save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / MODEL).write_bytes(pickled)
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        Segmenter.from_pretrained(tmp_path / "saved")
    assert not (tmp_path / "the code ran").exists()
    pickle.loads(pickled)
    assert (tmp_path / "the code ran").exists()  # it does run, if it is unpickled


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that a download needs."""

    files: dict[str, bytes]
    asked: list[str]

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.asked.append(self.path)
        if self.path.startswith("/api/models/some/one/revision/main"):
            siblings = [{"rfilename": name} for name in self.files]
            body = {"id": "some/one", "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            return self._answer(json.dumps(body).encode())
        if self.path.startswith("/api/models/some/one/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.files.items()
            ]
            return self._answer(json.dumps(tree).encode())
        if self.path.startswith("/api/models/some/one/revision/"):
            return self._error("RevisionNotFound")
        name = self.path.rpartition("/")[2]
        if self.path.startswith("/some/one/resolve/") and name in self.files:
            return self._answer(self.files[name], name)
        return self._error("RepoNotFound")

    def do_HEAD(self):
        self.do_GET()

    def _answer(self, content, name=""):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json" if not name else "application/octet-stream")
        if name:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _error(self, code):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with the repository some/one, which holds a pickle too."""
    with_squares().save_pretrained(tmp_path / "upload")
    files = {path.name: path.read_bytes() for path in (tmp_path / "upload").iterdir()}
    handler = type("Handler", (Hub,), {"files": files | {"evil.pkl": b"cos\nsystem\n."}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield handler
    server.shutdown()
    server.server_close()


def test_a_repository_is_downloaded_without_its_pickles_and_then_needs_no_network(hub, tmp_path, monkeypatch):
    found = Segmenter.from_pretrained("some/one")
    assert found.classes == with_squares().classes
    assert not any("evil" in path for path in hub.asked)
    asked = len(hub.asked)
    again = Segmenter.from_pretrained("some/one", local_files_only=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = Segmenter.from_pretrained("some/one")
    assert len(hub.asked) == asked
    image, _ = picture(9)
    masks = [each.segment(image).labels for each in (found, again, offline)]
    assert all(np.array_equal(masks[0], other) for other in masks[1:])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("some/other", {}, "has no such repository, or a private one"),
        ("some/one", {"revision": "v9"}, "has no revision 'v9'"),
        ("a/b/c", {}, "no name of a repository: give owner/name"),
        ("some/one", {"local_files_only": True}, "not in the cache"),
    ],
)
def test_what_the_hub_does_not_have_is_one_clear_line(hub, name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        Segmenter.from_pretrained(name, **options)
    assert "\n" not in str(caught.value)


def test_without_a_network_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match="cannot be reached"):
        Segmenter.from_pretrained("some/one")


def test_an_upload_makes_the_repository_and_sends_the_four_files(monkeypatch):
    made = {}

    def create(self, name, *, private, exist_ok):
        made.update(name=name, private=private, exist_ok=exist_ok)

    def upload(self, *, repo_id, folder_path, commit_message):
        made.update(repo=repo_id, files=sorted(path.name for path in Path(folder_path).iterdir()))
        assert f'Segmenter.from_pretrained("{repo_id}")' in Path(folder_path, CARD).read_text()

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload)
    address = with_squares().push_to_hub("some/one", private=True)
    assert address == f"{constants.ENDPOINT}/some/one"
    assert made.pop("files") == sorted([MODEL, SETTINGS, SUPPORTS, CARD])
    assert made == {"name": "some/one", "private": True, "exist_ok": True, "repo": "some/one"}


def test_an_upload_that_fails_is_one_line(monkeypatch):
    def create(self, *_, **__):
        raise OSError("no network\nand more")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create)
    with pytest.raises(ValueError, match=r"could not upload to 'some/one' \(no network\): give owner/name"):
        segmenter().push_to_hub("some/one")


def test_a_model_of_a_checkpoint_knows_its_header():
    assert model().about is None
