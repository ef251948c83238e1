"""The ML backend protocol of Label Studio, against a stand-in."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from fewseg.annotations.rle import decode_brush
from fewseg.annotations.shapes import polygon
from fewseg.inference import Model, Segmenter
from fewseg.inference.quality import QualityEstimator
from fewseg.serve import label_studio as projects
from fewseg.serve.app import create_app
from fewseg.serve.label_studio_client import StudioClient, StudioSettings
from fewseg.serve.limits import Limits, RequestError
from serve_page import Page, refusal, serving
from small_segmenters import SIZE, model, picture
from studio_stand_in import CONFIG, KEY, URL, StandIn, brush, region

IMAGE, MASK = picture(0)
OTHER, OTHER_MASK = picture(9, hw=(60, 40), box=(5, 30, 8, 30))
THIRD, THIRD_MASK = picture(4, box=(5, 20, 30, 60), colour=(20, 240, 30))


def settings_for(server, **settings):
    return StudioSettings(**{"url": URL, "key": KEY, "transport": httpx.MockTransport(server), **settings})


class Studio:
    """Label Studio's side of the protocol."""

    def __init__(self, server, limits=None, network=None, **settings):
        studio = settings_for(server, **settings)
        app = create_app(network or model(), limits, hosts=("127.0.0.1",), label_studio=studio)
        self.http = TestClient(app, base_url="http://127.0.0.1:8017", raise_server_exceptions=False)

    def setup(self, config=CONFIG, project="1.1700000000"):
        body = {"project": project, "schema": config, "hostname": "http://evil.example", "access_token": "x"}
        return self.http.post("/setup", json=body)

    def ask(self, tasks, config=CONFIG, **more):
        body = {"tasks": tasks, "project": "1.1700000000", "label_config": config, "params": {}, **more}
        return self.http.post("/predict", json=body)

    def predict(self, tasks, config=CONFIG):
        answer = self.ask(tasks, config)
        assert answer.status_code == 200, answer.text
        return answer.json()["results"]

    def event(self, action, project=1):
        return self.http.post("/webhook", json={"action": action, "project": {"id": project}})


@pytest.fixture
def server():
    """One annotated task; a test may put another one in its place."""
    server = StandIn()
    server.task(1, IMAGE, [brush(MASK)])
    return server


@pytest.fixture
def studio(server):
    return Studio(server)


@pytest.mark.parametrize("chooses", [False, True], ids=["fitted", "auto"])
def test_fitted_heads_and_auto_predict_too(server, chooses):
    plain = model("fitted")
    studio = Studio(server, network=Model(plain.method, plain.config, SIZE, chooses=chooses))
    server.task(2, OTHER)
    (prediction,) = studio.predict(server.asking(2))
    found = mask_of(prediction)
    assert (found & (OTHER_MASK == 1)).sum() > 0.8 * (found | (OTHER_MASK == 1)).sum()
    assert 0 < prediction["score"] <= 1


def mask_of(prediction, label="square"):
    (item,) = [i for i in prediction["result"] if i["value"]["brushlabels"] == [label]]
    size = (item["original_height"], item["original_width"])
    return decode_brush(item["value"]["rle"], size, "the answer")


def segmented(image, *examples):
    segmenter = Segmenter(model())
    for number, (support, masks) in enumerate(examples):
        segmenter.add_image(support, masks)
        assert len(segmenter.supports.images) == number + 1
    return segmenter.segment(image)


def check_masks(prediction, wanted):
    """A prediction has the classes of a segmentation, to the pixel."""
    shown = {name for name in wanted.classes if wanted.mask(name).any()}
    assert {item["value"]["brushlabels"][0] for item in prediction["result"]} == shown
    for name in shown:
        np.testing.assert_array_equal(mask_of(prediction, name), wanted.mask(name))


def test_annotated_tasks_are_examples_and_the_others_get_the_masks_of_the_segmenter(server, studio):
    tasks = server.task(2, OTHER)
    version = studio.setup().json()["model_version"]
    (found,) = studio.predict(tasks)
    wanted = segmented(OTHER, (IMAGE, {"square": MASK}))
    assert wanted.labels.any()
    check_masks(found, wanted)
    assert found["score"] == pytest.approx(wanted.quality.score, abs=1e-6)
    assert found["model_version"] == version
    item = found["result"][0]
    assert (item["from_name"], item["to_name"], item["type"]) == ("mask", "photo", "brushlabels")


def test_several_classes_polygons_and_rectangles(server, studio):
    corners = [[10.0, 20.0], [60.0, 20.0], [60.0, 90.0]]
    drawn = region({"points": corners}, "disc", IMAGE.shape[:2], "polygonlabels")
    box = {"x": 50, "y": 10, "width": 20, "height": 50, "rotation": 0}
    boxed = region(box, "square", OTHER.shape[:2], "rectanglelabels")
    server.task(1, IMAGE, [brush(MASK), drawn])
    server.task(2, OTHER, [boxed])
    (found,) = studio.predict(server.task(3, THIRD))
    h, w = IMAGE.shape[:2]
    disc = polygon([(x * w / 100, y * h / 100) for x, y in corners], (h, w)).astype(np.uint8)
    square = np.zeros(OTHER.shape[:2], np.uint8)
    square[6:36, 20:28] = 1
    wanted = segmented(THIRD, (IMAGE, {"square": MASK, "disc": disc}), (OTHER, {"square": square}))
    assert wanted.labels.any()
    check_masks(found, wanted)


def test_the_latest_annotation_that_was_not_cancelled_counts_and_a_ground_truth_more(server, studio):
    tasks = server.task(2, OTHER)
    server.task(1, IMAGE, [brush(1 - MASK)])
    server.annotate(1, [brush(MASK)])
    server.annotate(1, [brush(1 - MASK)], was_cancelled=True)
    wanted = segmented(OTHER, (IMAGE, {"square": MASK}))
    check_masks(studio.predict(tasks)[0], wanted)
    late = server.tasks[1]["annotations"]
    late.reverse()  # the order in the list has no meaning
    studio.event("ANNOTATION_UPDATED")
    check_masks(studio.predict(tasks)[0], wanted)
    half = MASK.copy()
    half[:, 35:] = 0
    server.annotate(1, [brush(half)], ground_truth=True, updated_at="2020-01-01T00:00:00Z")
    studio.event("ANNOTATION_UPDATED")
    check_masks(studio.predict(tasks)[0], segmented(OTHER, (IMAGE, {"square": half})))


def test_without_an_annotation_the_answer_is_empty_with_the_score_0(server, studio, caplog):
    tasks = server.task(1, IMAGE) + server.task(2, OTHER)
    found = studio.predict(tasks)
    assert found == [{"result": [], "score": 0.0, "model_version": "fewseg-no-examples"}] * 2
    assert "no task is annotated" in caplog.text
    assert not server.times(".png")


def test_an_image_is_encoded_once_and_only_changed_annotations_are_read(server, studio, monkeypatch):
    passes = []
    run = model().method.backbone.forward
    monkeypatch.setattr(model().method.backbone, "forward", lambda x: passes.append(len(x)) or run(x))
    tasks = server.task(2, OTHER)
    for _ in range(2):
        studio.predict(tasks)
    assert (len(passes), server.times("/1.png"), server.times("/export")) == (2, 1, 1)
    server.annotate(2, [brush(OTHER_MASK)])
    studio.event("ANNOTATION_CREATED")
    studio.predict(server.task(3, THIRD))
    assert (len(passes), server.times("/1.png"), server.times("/export")) == (3, 1, 2)


@pytest.mark.parametrize("action", ["ANNOTATION_CREATED", "ANNOTATIONS_DELETED", "START_TRAINING"])
def test_an_event_has_the_annotations_read_again_and_changes_the_version(server, studio, action):
    before = studio.setup().json()["model_version"]
    assert studio.setup().json()["model_version"] == before
    server.task(2, OTHER, [brush(OTHER_MASK)])
    assert studio.event("TASKS_CREATED").json() == {"stale": False}
    assert studio.event(action, project=7).json() == {"stale": True}
    assert studio.setup().json()["model_version"] == before
    studio.event(action)
    assert studio.setup().json()["model_version"] != before
    del server.tasks[2]
    studio.event(action)
    assert studio.setup().json()["model_version"] == before


def test_a_task_with_nothing_but_ignored_regions_is_no_example(server, studio, caplog):
    server.task(2, OTHER, [brush(OTHER_MASK, label="ignore")])
    studio.predict(server.task(3, THIRD))
    assert "task 2 is not used as an example: ignored regions and no class" in caplog.text


def test_without_events_an_image_that_did_not_come_is_requested_again(server, studio, monkeypatch, caplog):
    server.task(2, OTHER, [brush(OTHER_MASK)])
    tasks = server.task(3, THIRD)
    file, server.files["/data/upload/1/2.png"] = server.files["/data/upload/1/2.png"], httpx.Response(503)
    one = studio.predict(tasks)[0]["model_version"]
    assert "task 2 is not used as an example" in caplog.text
    requests = server.times("/2.png")
    assert studio.predict(tasks)[0]["model_version"] == one
    assert server.times("/2.png") == requests
    monkeypatch.setattr(projects, "_OLD", 0.0)
    assert studio.predict(tasks)[0]["model_version"] == one
    assert server.times("/2.png") == requests + 1
    server.files["/data/upload/1/2.png"] = file
    assert studio.setup().json()["model_version"] == one  # until it is there
    both = studio.predict(tasks)[0]["model_version"]
    assert both != one
    assert studio.setup().json()["model_version"] == both


def test_an_annotation_without_a_region_is_a_negative_and_key_points_are_left_out(server, studio, caplog):
    point = region({"x": 50, "y": 50, "width": 1}, "square", OTHER.shape[:2], "keypointlabels")
    server.task(2, OTHER, [point])
    tasks = server.task(4, OTHER)
    alone = segmented(OTHER, (IMAGE, {"square": MASK}))
    check_masks(studio.predict(tasks)[0], alone)
    assert "1 x keypointlabels" in caplog.text
    server.task(3, THIRD, [])
    studio.event("ANNOTATION_CREATED")
    wanted = segmented(OTHER, (IMAGE, {"square": MASK}), (THIRD, {}))
    found = studio.predict(tasks)[0]
    assert found["score"] == pytest.approx(wanted.quality.score, abs=1e-6)
    assert wanted.presence != alone.presence
    check_masks(found, wanted)


def test_the_newest_tasks_of_each_class_are_examples(server):
    studio = Studio(server, shots=1)
    server.task(1, THIRD, [brush(THIRD_MASK, "disc")])
    server.task(2, OTHER, [brush(OTHER_MASK)])
    server.task(3, IMAGE, [brush(MASK)])
    (found,) = studio.predict(server.task(4, OTHER))
    wanted = segmented(OTHER, (THIRD, {"disc": THIRD_MASK}), (IMAGE, {"square": MASK}))
    assert wanted.labels.any()
    check_masks(found, wanted)


def test_the_page_does_not_wait_while_a_task_is_judged(server, studio, monkeypatch):
    tasks = server.task(2, OTHER)
    page, judge, waited = Page(studio.http.app), QualityEstimator.estimate, []

    def slow(self, *given):
        waited.append(ThreadPoolExecutor().submit(page.image, THIRD).result(60))
        return judge(self, *given)

    monkeypatch.setattr(QualityEstimator, "estimate", slow)
    assert studio.predict(tasks)[0]["result"]
    assert waited == [image["id"] for image in page.state()["images"]]


def test_polygons_are_the_answer_where_there_is_no_brush(server, studio):
    config = CONFIG.replace("BrushLabels", "PolygonLabels")
    corners = [[20 / 0.7, 20], [55 / 0.7, 20], [55 / 0.7, 80], [20 / 0.7, 80]]
    server.task(1, IMAGE, [region({"points": corners}, "square", IMAGE.shape[:2], "polygonlabels")])
    (found,) = studio.predict(server.task(2, OTHER), config)
    joined = np.zeros(OTHER.shape[:2], bool)
    for item in found["result"]:
        assert item["type"] == "polygonlabels"
        points = [(x * 40 / 100, y * 60 / 100) for x, y in item["value"]["points"]]
        joined |= polygon(points, OTHER.shape[:2])
    wanted = segmented(OTHER, (IMAGE, {"square": MASK})).labels > 0
    assert (joined & wanted).sum() / (joined | wanted).sum() > 0.9


def test_an_image_that_cannot_be_used_gets_no_prediction_and_the_others_theirs(server, studio, caplog):
    tasks = server.task(2, b"no image") + server.task(3, OTHER) + [{"id": 4, "data": {}}]
    found = studio.predict(tasks)
    assert (found[0], found[2]) == ([], [])
    assert found[1]["result"]
    assert "task 2 gets no prediction" in caplog.text


def test_examples_stay_within_their_bytes(server, caplog):
    (encoded,) = model().encode([model().prepare(torch.from_numpy(IMAGE).permute(2, 0, 1))])
    studio = Studio(server, limits=Limits(session_bytes=2 * encoded.nbytes))
    for number in range(1, 9):
        server.task(number, picture(number)[0], [brush(MASK)])
    assert studio.predict(server.task(20, OTHER))[0]["result"]
    assert "2 of 8 annotated tasks are used as examples" in caplog.text


@pytest.mark.parametrize(
    "address",
    [
        "http://evil.example/data/a.png",
        "//evil.example/data/a.png",
        "https://studio.example:8080/data/a.png",
        "http://studio.example/data/a.png",
        "http://studio.example:8080@evil.example/data/a.png",
        "http://user:word@studio.example:8080/data/a.png",
        "http://169.254.169.254/data/latest",
        "file:///data/a.png",
        "/api/current-user/token",
        "/data/%2e%2e/api/current-user/token",
        "/data/..\\api",
        "s3://bucket/data/a.png",
        "",
    ],
)
def test_images_come_from_label_studio_alone(server, studio, address, caplog):
    studio.predict(server.asking(1))
    requests = len(server.asked)
    assert studio.predict([{"id": 5, "data": {"image": address}}]) == [[]]
    assert len(server.asked) == requests
    assert "is not on http://studio.example:8080/" in caplog.text


def test_full_addresses_of_label_studio_and_its_storages_are_read(server, studio):
    paths = ("/data/local-files/?d=a/b.png", "/tasks/1/resolve/?fileuri=x", f"{URL}/data/upload/1/1.png")
    for address in paths:
        server.files[httpx.URL(address).path] = server.files["/data/upload/1/1.png"]
        assert studio.predict([{"id": 5, "data": {"image": address}}])[0]["result"]


def test_below_a_path_that_a_proxy_adds_other_paths_are_not_label_studio(server):
    client = StudioClient(settings_for(server, url=f"{URL}/ls/"), 10**6)
    server.files["/ls/data/a.png"] = server.files["/data/a.png"] = b"an image"
    for address in ("/data/a.png", "/ls/data/a.png", f"{URL}/ls/data/a.png"):
        assert client.image(address) == b"an image"
    assert server.asked == ["GET /ls/data/a.png"] * 3
    for address in (f"{URL}/data/a.png", f"{URL}/lsx/data/a.png", f"{URL}/ls/%2e%2e/data/a.png"):
        with pytest.raises(RequestError, match="is not on"):
            client.image(address)
    assert len(server.asked) == 3


def test_redirects_large_images_and_refusals_are_logged(server, caplog):
    studio = Studio(server, limits=Limits(upload_bytes=40_000))
    server.task(2, OTHER)
    for answer, text in (
        (httpx.Response(302, headers={"Location": "http://evil.example/"}), "redirects are not followed"),
        (b"x" * 40_001, "is larger than the limit, "),
        (httpx.Response(500), "with 500"),
    ):
        server.files["/data/upload/1/2.png"] = answer
        assert studio.predict(server.asking(2)) == [[]]
        assert text in caplog.text


def test_a_wrong_token_and_a_missing_server_are_errors_on_connecting(server, caplog):
    def gone(request):
        raise httpx.ConnectError("refused", request=request)

    assert "LABEL_STUDIO_API_KEY" in refusal(Studio(server, key="wrong").setup(), 502)
    assert "LABEL_STUDIO_API_KEY" in caplog.text
    assert "is it running" in refusal(Studio(gone).setup(), 502)


def test_a_personal_access_token_is_changed_for_one_that_is_renewed(server):
    studio = Studio(server, key="aaa.bbb.ccc")
    server.access, server.key = "first", "Bearer first"
    assert studio.predict(server.asking(1))[0]["result"]
    server.access, server.key = "second", "Bearer second"
    assert studio.predict(server.task(2, OTHER))[0]["result"]
    assert server.times("POST /api/token/refresh/") == 2


def test_a_user_and_a_password_are_required_where_they_are_set_but_not_of_events(server):
    studio = Studio(server, user="me", password="secret")
    for send in (studio.setup, lambda: studio.http.get("/health"), lambda: studio.ask([])):
        assert send().status_code == 401
    assert studio.event("ANNOTATION_CREATED").status_code == 200
    studio.http.auth = ("me", "wrong")
    assert studio.setup().status_code == 401
    studio.http.auth = ("me", "secret")
    assert studio.http.get("/health").json()["status"] == "UP"
    assert studio.setup().status_code == 200
    (version,) = studio.http.get("/versions").json()["versions"]
    assert re.fullmatch("fewseg-[0-9a-f]{12}", version)


def test_the_password_of_the_page_guards_label_studio_where_it_has_none_of_its_own(server):
    app = create_app(model(), hosts=("127.0.0.1",), label_studio=settings_for(server), password="word")
    http = TestClient(app, base_url="http://127.0.0.1:8017")
    for path in ("/health", "/versions"):
        assert http.get(path).status_code == 401
    for path in ("/setup", "/predict", "/webhook"):
        assert http.post(path, json={}).status_code == 401
    assert http.get("/health", auth=("any", "word")).status_code == 200
    own = settings_for(server, user="me", password="secret")
    http = TestClient(create_app(model(), label_studio=own, password="word"))
    assert http.get("/health", auth=("any", "word")).status_code == 401
    assert http.get("/health", auth=("me", "secret")).status_code == 200
    assert http.get("/", auth=("me", "secret")).status_code == 401


def test_a_flood_of_events_is_refused_and_later_ones_are_taken(server, monkeypatch):
    monkeypatch.setattr(projects, "_EVENTS_A_MINUTE", 3)
    studio = Studio(server)
    answers = [studio.event("ANNOTATION_CREATED").status_code for _ in range(5)]
    assert answers == [200] * 3 + [429] * 2
    monkeypatch.setattr(projects, "_MINUTE", 0.0)
    assert studio.event("ANNOTATION_CREATED").status_code == 200


def test_the_page_is_as_strict_as_without(server):
    http = Studio(server).http
    assert http.get("/api/session").status_code == 401
    assert http.post("/setup", headers={"Host": "evil.example"}).status_code == 421
    assert http.post("/predict", headers={"Origin": "http://evil.example"}).status_code == 403
    alone = TestClient(create_app(model()), base_url="http://127.0.0.1:8017")
    assert alone.get("/health").status_code == 404


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"{", 422, "must be JSON"),
        (b"[]", 422, "an object"),
        (b"{}", 422, "'tasks'"),
        (b'{"tasks": []}', 422, "the project must be its id"),
        (b'{"tasks": [], "project": "../1"}', 422, "the project must be its id"),
        (b'{"tasks": [], "project": "1.5"}', 409, "no labelling configuration"),
        (b'{"tasks": [], "project": "1.5", "label_config": 5}', 422, "label_config"),
    ],
)
def test_a_malformed_request_is_refused(studio, body, status, text):
    assert text in refusal(studio.http.post("/predict", content=body), status)


def test_an_event_that_is_too_long_to_be_read_counts_as_a_change(server, studio):
    tasks = server.task(2, OTHER)
    studio.predict(tasks)
    server.annotate(1, [brush(1 - MASK)])
    answer = studio.http.post("/webhook", content=b'{"action": "' + b"x" * (2 << 20))
    assert (answer.status_code, answer.json()) == (200, {"stale": True})
    wanted = segmented(OTHER, (IMAGE, {"square": 1 - MASK}))
    check_masks(studio.predict(tasks)[0], wanted)


def test_a_label_studio_that_does_not_answer_leaves_the_page_its_threads(server):
    """More requests wait for it than a server has threads for the page."""
    requests, answer = threading.Semaphore(0), threading.Event()

    def hung(request):
        requests.release()
        assert answer.wait(60)
        return server(request)

    app = create_app(model(), label_studio=settings_for(hung))
    body = {"tasks": [], "project": "1.1700000000", "label_config": CONFIG}
    with serving(app) as address, ThreadPoolExecutor(60) as pool:
        for _ in range(60):
            pool.submit(httpx.post, f"{address}/predict", json=body, timeout=60)
        try:
            assert requests.acquire(timeout=60)
            assert httpx.post(f"{address}/api/sessions", timeout=20).status_code == 201
            assert httpx.get(f"{address}/health", timeout=20).status_code == 200
        finally:
            answer.set()
