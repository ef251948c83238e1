"""A real Label Studio, started here, with the server of ``fewseg serve`` as its ML backend.

``install_label_studio`` beside this file gets it; ``FEWSEG_LABEL_STUDIO`` may name another executable.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from fewseg.annotations.rle import decode_brush
from fewseg.inference import Segmenter
from fewseg.serve import label_studio as projects
from fewseg.serve.app import create_app
from fewseg.serve.label_studio_client import StudioClient, StudioSettings
from serve_page import png, serving
from small_segmenters import model, picture
from studio_stand_in import CONFIG, brush, region

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
INSTALLED = CACHE / "fewseg" / "label-studio" / "bin" / "label-studio"
NAMED = os.environ.get("FEWSEG_LABEL_STUDIO") or shutil.which("label-studio") or shutil.which(INSTALLED)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        NAMED is None, reason="there is no Label Studio: run tests/end_to_end/install_label_studio"
    ),
]

TOKEN = "0123456789abcdef0123456789abcdef01234567"
USER, PASSWORD = "fewseg", "a secret of both"
SLOW = 600  # seconds: the machine may be busy
SQUARE, SQUARE_MASK = picture(0)
BOX, _ = picture(4, hw=(80, 60), box=(8, 48, 15, 45), colour=(30, 240, 30))
BOX_MASK = np.zeros((80, 60), np.uint8)
BOX_MASK[8:48, 15:45] = 1
THIRD, _ = picture(9, hw=(60, 40), box=(5, 30, 8, 30))
FOURTH, _ = picture(5, hw=(70, 90), box=(20, 60, 30, 80), colour=(30, 240, 30))
QUIET = {"SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": ""}
OFF = ("COLLECT_ANALYTICS", "LATEST_VERSION_CHECK")
OFF += ("ML_BLOCK_LOCAL_IP", "SSRF_PROTECTION_ENABLED")  # the backend is on this machine
PATIENT = ("ML_TIMEOUT_HEALTH", "ML_TIMEOUT_SETUP", "ML_CONNECTION_TIMEOUT", "WEBHOOK_TIMEOUT")
SETTINGS = {**QUIET, **dict.fromkeys(OFF, "false"), **dict.fromkeys(PATIENT, "60")}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """Label Studio with an empty SQLite in a folder of its own, as a client of its API."""
    folder, port = tmp_path_factory.mktemp("label-studio"), free_port()
    words = [NAMED, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    words += ["--data-dir", str(folder), "--username", "a@example.org", "--password", "a long password"]
    words += ["--user-token", TOKEN, "--enable-legacy-api-token"]
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG")}
    with (folder / "log").open("wb") as log:
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        process = subprocess.Popen(words, env=kept | SETTINGS, cwd=folder, start_new_session=True, **streams)
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Token {TOKEN}"}, timeout=SLOW
    )
    try:
        wait_until_it_answers(client, process, folder / "log")
        yield client
    finally:
        client.close()
        os.killpg(process.pid, signal.SIGKILL)  # it has started another of itself
        process.wait()


def wait_until_it_answers(client, process, log):
    end = time.monotonic() + SLOW
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            if client.get("/health", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail(f"Label Studio did not start in {SLOW} s: {log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def backend(studio):
    """The server of ``fewseg serve``; annotations are read again after events alone."""
    settings = StudioSettings(url=str(studio.base_url), key=TOKEN, user=USER, password=PASSWORD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projects, "_OLD", 1e9)
        app = create_app(model(), hosts=("127.0.0.1", "localhost"), label_studio=settings)
        with serving(app) as address:
            yield address


@pytest.fixture(scope="module")
def made(studio):
    """A project of four images: its id, and those of its tasks."""
    project = got(studio.post("/api/projects/", json={"title": "shapes", "label_config": CONFIG}))["id"]
    for k, image in enumerate((SQUARE, BOX, THIRD, FOURTH)):
        file = (f"{k} ü.png", png(image), "image/png")
        got(studio.post(f"/api/projects/{project}/import", files={"file": file}))
    words = {"exportType": "JSON", "download_all_tasks": "true"}
    tasks = got(studio.get(f"/api/projects/{project}/export", params=words))
    return project, sorted(task["id"] for task in tasks)


def got(answer):
    assert answer.status_code in (200, 201), f"{answer.status_code}: {answer.text[:2000]}"
    return answer.json()


def connect(studio, backend, project, password=PASSWORD):
    words = {"auth_method": "BASIC_AUTH", "basic_auth_user": USER, "basic_auth_pass": password}
    body = {"url": backend, "project": project, "title": "fewseg", **words}
    return studio.post("/api/ml/", json=body)


def newest_predictions(studio, project):
    """Has Label Studio request predictions of all tasks, and returns the last of each by task."""
    words = {"id": "retrieve_tasks_predictions", "project": project}
    chosen = {"selectedItems": {"all": True, "excluded": []}, "project": str(project)}
    got(studio.post("/api/dm/actions", params=words, json=chosen))
    found = got(studio.get("/api/predictions/", params={"project": project}))
    return {p["task"]: p for p in sorted(found, key=lambda p: p["id"])}


def check(prediction, image, supports):
    """A prediction is that of the Segmenter, to the pixel, and with its score."""
    segmenter = Segmenter(model())
    for support, masks in supports:
        segmenter.add_image(support, masks)
    wanted = segmenter.segment(image)
    assert wanted.labels.any()
    named = {item["value"]["brushlabels"][0]: item for item in prediction["result"]}
    assert set(named) == {name for name in wanted.classes if wanted.mask(name).any()}
    for name, item in named.items():
        assert (item["original_height"], item["original_width"]) == image.shape[:2]
        mask = decode_brush(item["value"]["rle"], image.shape[:2], "the prediction")
        np.testing.assert_array_equal(mask, wanted.mask(name))
    assert prediction["score"] == pytest.approx(wanted.quality.score, abs=1e-6)


def test_a_project_is_labelled_by_its_annotated_tasks(studio, backend, made):
    project, tasks = made
    assert "authentication" in connect(studio, backend, project, "another").text
    connected = got(connect(studio, backend, project))
    assert connected["state"] == "CO"

    found = newest_predictions(studio, project)
    assert [(found[t]["result"], found[t]["score"]) for t in tasks] == [([], 0.0)] * 4

    def annotate(task, *regions):
        return got(studio.post(f"/api/tasks/{task}/annotations/", json={"result": list(regions)}))["id"]

    first = annotate(tasks[0], brush(SQUARE_MASK))
    corners = {"points": [[25, 10], [75, 10], [75, 60], [25, 60]], "closed": True}
    annotate(tasks[1], region(corners, "disc", (80, 60), "polygonlabels"))
    supports = [(SQUARE, {"square": SQUARE_MASK}), (BOX, {"disc": BOX_MASK})]
    found = newest_predictions(studio, project)
    check(found[tasks[2]], THIRD, supports)
    check(found[tasks[3]], FOURTH, supports)
    version = found[tasks[2]]["model_version"]
    assert newest_predictions(studio, project) == found  # nothing has changed: nothing is requested again

    half = SQUARE_MASK.copy()
    half[:, 35:] = 0
    got(studio.patch(f"/api/annotations/{first}/", json={"result": [brush(half)]}))
    found = newest_predictions(studio, project)
    check(found[tasks[2]], THIRD, [(SQUARE, {"square": half}), supports[1]])
    assert found[tasks[2]]["model_version"] != version

    assert studio.delete(f"/api/annotations/{first}/").status_code == 204
    check(newest_predictions(studio, project)[tasks[3]], FOURTH, supports[1:])


def test_an_opened_task_brings_its_prediction(studio, backend, made):
    _, tasks = made
    opened = got(studio.get(f"/api/tasks/{tasks[3]}"))
    shown = max(opened["predictions"], key=lambda p: p["id"])
    check(shown, FOURTH, [(BOX, {"disc": BOX_MASK})])


def test_a_personal_access_token_reads_the_same(studio, made):
    project, tasks = made
    personal = got(studio.post("/api/token/"))["token"]
    by_token = [
        StudioClient(StudioSettings(url=str(studio.base_url), key=key), 2**20) for key in (TOKEN, personal)
    ]
    first, second = (client.tasks(project) for client in by_token)
    assert [task["id"] for task in first] == [task["id"] for task in second] == [tasks[1]]
    address = first[0]["data"]["image"]
    assert by_token[0].image(address) == by_token[1].image(address) == png(BOX)
