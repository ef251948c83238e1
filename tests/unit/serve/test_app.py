import base64
import io
import re
import threading

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from fewseg.inference import Segmenter
from fewseg.inference.quality import QualityEstimator
from fewseg.serve import pages
from fewseg.serve.app import create_app
from fewseg.serve.limits import Limits
from serve_page import Page, at_once, png, read_png, refusal
from small_segmenters import iou, model, picture


def file_of(image, form, **options):
    file = io.BytesIO()
    image.save(file, format=form, **options)
    return file.getvalue()


def test_a_support_gives_predictions_on_the_other_images_as_the_segmenter_does(annotated):
    page, _, other, mask = annotated
    segmenter = Segmenter(model())
    segmenter.add_class("square", picture(0)[0], mask)
    wanted = segmenter.segment(picture(9, hw=(60, 40), box=(5, 30, 8, 30))[0])
    assert wanted.labels.any()
    np.testing.assert_array_equal(page.labels(other), wanted.labels)
    np.testing.assert_array_equal(page.labels(other, threshold=0.7), wanted.at(0.7).labels)


def test_a_mask_comes_back_to_the_pixel(annotated):
    page, support, other, mask = annotated
    np.testing.assert_array_equal(page.labels(support), mask)
    page.add_class("second")
    noise = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (60, 40))
    assert page.settle(other, noise, "accepted").json()["role"] == "accepted"
    np.testing.assert_array_equal(page.labels(other), noise)
    assert (page.labels(other, predicted=True) != noise).any()


def test_each_image_goes_through_the_backbone_once(page, monkeypatch):
    passes = []
    run = model().method.backbone.forward
    monkeypatch.setattr(model().method.backbone, "forward", lambda x: passes.append(len(x)) or run(x))
    first, mask = picture(0)
    support, other = page.image(first), page.image(picture(9)[0])
    page.add_class("square")
    for threshold in (0.3, 0.6):
        page.settle(support, mask)
        page.labels(other, threshold=threshold)
        page.http.get(f"/api/images/{other}/quality")
    assert passes == [1, 1]


def test_a_corrected_prediction_can_become_a_support(annotated):
    page, _, other, _ = annotated
    third = page.image(picture(4)[0])
    before, version = page.labels(third), page.state()["version"]
    corrected = np.zeros((60, 40), np.uint8)
    corrected[40:55, 5:20] = 1
    page.settle(other, corrected, "accepted")
    assert page.state()["version"] == version
    np.testing.assert_array_equal(page.labels(third), before)
    page.settle(other, corrected, "support")
    assert page.state()["version"] > version
    assert (page.labels(third) != before).any()
    page.http.delete(f"/api/images/{other}/labels")
    np.testing.assert_array_equal(page.labels(third), before)


def test_quality_is_judged_and_without_a_support_a_mask_is_empty(annotated):
    page, support, other, _ = annotated
    found = page.http.get(f"/api/images/{other}/quality").json()
    assert 0 <= found["quality"] <= 1
    assert found["calibrated"] is False
    assert set(found["parts"]) == {"square"}
    page.http.delete(f"/api/images/{support}/labels")
    assert not page.labels(other).any()
    assert page.http.get(f"/api/images/{other}/quality").json() == {}


def test_a_class_that_has_no_support_yet_keeps_the_numbers_of_the_others(page):
    image, mask = picture(0)
    support, other = page.image(image), page.image(picture(9)[0])
    page.add_class("nothing yet")
    page.add_class("square")
    page.settle(support, mask * 2)
    for _ in range(2):
        assert set(np.unique(page.labels(other))) == {0, 2}
        renamed = page.http.put("/api/classes/2", params={"name": "renamed"})
        assert renamed.json()["classes"] == ["nothing yet", "renamed"]


def test_an_image_without_any_class_is_a_negative(annotated):
    page, support, other, _ = annotated
    page.settle(other, np.zeros((60, 40), np.uint8))
    assert page.state()["images"][1]["role"] == "support"
    third = page.image(picture(4)[0])
    assert page.labels(third).shape == (50, 70)
    page.http.delete(f"/api/images/{support}")
    assert not page.labels(third).any()


def test_a_turned_photograph_is_shown_and_labelled_upright(page):
    tags = Image.Exif()
    tags[0x0112] = 6
    turned = file_of(Image.fromarray(picture(0)[0]), "JPEG", exif=tags)
    answer = page.upload(turned, "turned.jpg").json()
    assert (answer["width"], answer["height"]) == (50, 70)
    shown = page.http.get(f"/api/images/{answer['id']}/picture")
    assert Image.open(io.BytesIO(shown.content)).size == (50, 70)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\pictures\\a.png", "a.png"),
        ("..", "image"),
        ("a\0b\n.png", "ab.png"),
        ("ü " + "x" * 300 + ".png", "x" * 196 + ".png"),
    ],
)
def test_a_file_name_is_its_last_part(page, name, shown):
    assert page.upload(picture(0)[0], name).json()["name"] == shown


def test_images_of_one_name_get_different_names(page):
    for name in ("a.png", "a.png", "b", "a.png", "b"):
        page.image(picture(0)[0], name)
    names = [image["name"] for image in page.state()["images"]]
    assert names == ["a.png", "a (2).png", "b", "a (3).png", "b (2)"]


BOMB = file_of(Image.new("1", (20_000, 20_000)), "PNG")
GIF = file_of(Image.new("L", (9, 9)), "GIF", save_all=True, append_images=[Image.new("L", (9, 9), 255)])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "0 bytes"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image a.png cannot be read: its content is no image"),
        (png(picture(0)[0])[:200], "cannot be read"),
        (BOMB, "400000000 pixels"),
        (GIF, "frames"),
    ],
    ids=["empty", "svg", "truncated", "bomb", "animated"],
)
def test_a_file_that_is_no_image_by_its_content_is_refused(page, content, text):
    detail = refusal(page.upload(content))
    assert text in detail
    assert "0x" not in detail, "an address of memory"
    assert not page.state()["images"]


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (np.zeros((50, 71), np.uint8), "71 x 50"),
        (np.full((50, 70), 2, np.uint8), "class ids [2]"),
        (np.arange(50 * 70 * 3, dtype=np.uint32).astype(np.uint8).reshape(50, 70, 3), "RGB"),
        (b"no png", "cannot be read"),
        (b"", "0 bytes"),
    ],
    ids=["size", "number", "colours", "other", "empty"],
)
def test_an_invalid_mask_is_refused(page, mask, text):
    image = page.image(picture(0)[0])
    assert "no class" in refusal(page.settle(image, picture(0)[1]))
    page.add_class("square")
    assert text in refusal(page.settle(image, mask))
    assert page.state()["images"][0]["role"] == "open"


def test_an_invalid_class_name_is_refused(page):
    page.add_class("square")
    for name in ("", "  ", "a\nb", "x" * 61, "SQUARE"):
        assert "class name must be" in refusal(page.add_class(name))
    assert page.state()["classes"] == ["square"]


@pytest.mark.parametrize("number", [0, 2, -1])
def test_a_class_that_does_not_exist_cannot_be_deleted_or_renamed(annotated, number):
    page, *_ = annotated
    address = f"/api/classes/{number}"
    for answer in (page.http.delete(address), page.http.put(address, params={"name": "y"})):
        assert f"there is no class {number}" in refusal(answer, 404)
    assert page.state()["classes"] == ["square"]


@pytest.mark.parametrize("limits", [Limits(upload_bytes=1000)])
def test_a_large_upload_is_refused_with_and_without_its_length(page):
    assert page.upload(b"x" * 1001).status_code == 413
    assert page.upload(b"x" * 400 for _ in range(3)).status_code == 413


@pytest.mark.parametrize("limits", [Limits(images=1), Limits(session_bytes=30_000)])
def test_a_full_session_refuses_images(page):
    codes = [page.upload(picture(k)[0]).status_code for k in range(12)]
    assert (codes[0], codes[-1]) == (201, 413)
    assert page.state()["bytes"] <= page.http.app.state.pages.limits.session_bytes
    page.add_class("square")
    if page.http.app.state.pages.limits.images == 1:
        assert page.settle(page.state()["images"][0]["id"], picture(0)[1]).status_code == 200


@pytest.mark.parametrize("limits", [Limits(pixels=3000)])
def test_pixels_are_limited(page):
    assert "70 x 50" in page.upload(picture(0)[0]).json()["detail"]


def test_sessions_do_not_see_each_other(app, annotated):
    page, support, *_ = annotated
    other = Page(app)
    assert other.state()["images"] == []
    assert other.http.get(f"/api/images/{support}/labels").status_code == 404
    other.http.headers["X-Fewseg-Session"] = "guessed"
    assert other.http.get("/api/session").status_code == 401
    page.http.delete("/api/session")
    assert page.http.get("/api/session").status_code == 401


def test_other_hosts_and_other_sites_are_refused(app):
    for host in ("evil.example", "evil-localhost", "127.0.0.1.evil.example"):
        assert TestClient(app, base_url=f"http://{host}").get("/").status_code == 421
    http = TestClient(app, base_url="http://127.0.0.1:8017")
    assert http.post("/api/sessions", headers={"Origin": "http://evil.example"}).status_code == 403
    assert http.post("/api/sessions", headers={"Origin": "http://127.0.0.1:3000"}).status_code == 403
    assert http.post("/api/sessions", headers={"Origin": "http://127.0.0.1:80170"}).status_code == 403
    assert http.post("/api/sessions", headers={"Origin": "http://127.0.0.1:8017"}).status_code == 201
    for broken in ("[", "[::1", "127.0.0.1]:x"):
        assert http.get("/", headers={"Host": broken}).status_code == 421
        assert http.post("/api/sessions", headers={"Origin": f"http://{broken}"}).status_code == 403
    anywhere = TestClient(create_app(model()), base_url="http://box.example")
    assert anywhere.get("/").status_code == 200


def test_the_page_brings_all_it_needs(page):
    home = page.http.get("/")
    assert home.status_code == 200
    assert "default-src 'self'" in home.headers["content-security-policy"]
    assert "http://" not in home.text.replace("http://www.w3.org", "")
    assert page.http.get("/api/session").headers["cache-control"] == "no-store"
    for path in ("/app.js", "/page.css"):
        assert page.http.get(path).headers["cache-control"] == "no-cache"
    for path in ("/../app.py", "/%2e%2e/app.py", "/openapi.json", "/docs"):
        assert page.http.get(path).status_code == 404


def test_a_class_that_is_deleted_leaves_every_mask_and_the_others_move_down(annotated):
    page, support, other, mask = annotated
    third = page.image(picture(4)[0], "three.png")
    page.add_class("dark")
    page.add_class("rim")
    both = mask * 3
    both[:3], both[-1] = 1, 255
    assert page.settle(third, both, "accepted").status_code == 200
    answer = page.http.delete("/api/classes/1")
    assert answer.status_code == 200, answer.text
    assert answer.json()["classes"] == ["dark", "rim"]
    roles = {image["id"]: image["role"] for image in answer.json()["images"]}
    assert roles == {support: "open", other: "open", third: "accepted"}  # the support showed nothing else
    left = np.where(both == 3, 2, np.where(both == 1, 0, both))
    np.testing.assert_array_equal(page.labels(third), left)
    assert not page.labels(other).any()  # nothing is left to learn from


def test_the_supports_of_the_other_classes_predict_as_if_the_deleted_one_had_never_been(page):
    first, mask = picture(0)
    support, other = page.image(first, "one.png"), page.image(picture(9)[0], "two.png")
    page.add_class("corner")
    page.add_class("square")
    drawn = mask * 2
    drawn[:4, :6] = 1
    assert page.settle(support, drawn).status_code == 200
    before = page.state()["version"]
    assert page.http.delete("/api/classes/1").json()["version"] > before
    segmenter = Segmenter(model())
    segmenter.add_class("square", first, mask)
    np.testing.assert_array_equal(page.labels(other), segmenter.segment(picture(9)[0]).labels)
    assert page.add_class("corner").json()["classes"] == ["square", "corner"]  # the name is free again


def test_a_mask_does_not_wait_while_quality_is_judged(annotated, monkeypatch):
    page, support, other, mask = annotated
    begun, go_on = threading.Event(), threading.Event()
    judge = QualityEstimator.estimate

    def slow(self, *given):
        begun.set()
        assert go_on.wait(60)
        return judge(self, *given)

    def draw():
        try:
            assert begun.wait(60)
            page.settle(support, drawn)
            np.testing.assert_array_equal(page.labels(support), drawn)
            page.labels(other)
        finally:
            go_on.set()

    monkeypatch.setattr(QualityEstimator, "estimate", slow)
    drawn = np.roll(mask, 5, axis=0)
    answer, _ = at_once(lambda: page.http.get(f"/api/images/{other}/quality"), draw)
    assert answer.status_code == 200


def test_an_invalid_parameter_is_described_in_a_line(annotated):
    page, support, _, mask = annotated
    address = f"/api/images/{support}/labels"
    for threshold, valid in (("0", "be greater than 0"), ("1", "be less than 1"), ("nan", ""), ("x", "be")):
        answer = page.http.get(address, params={"threshold": threshold})
        assert refusal(answer).startswith(f"threshold is {threshold!r}: it should {valid}")
    for text, answer in {
        "role is 'judge': it should be 'edited', 'accepted'": page.settle(support, mask, "judge"),
        "number is 'first': it should be a valid integer": page.http.delete("/api/classes/first"),
        "name is missing: give it": page.http.post("/api/classes"),
    }.items():
        assert refusal(answer).startswith(text)


def test_an_image_of_more_pixels_than_pillow_takes_by_itself_is_served(annotated, monkeypatch):
    page, _, _, mask = annotated
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        large = page.image(picture(4)[0], "large.png")
        assert page.settle(large, mask).status_code == 200
        answer = page.http.get(f"/api/images/{large}/labels")
    np.testing.assert_array_equal(read_png(answer.content), mask)


def test_a_host_header_that_is_more_than_a_name_and_a_port_is_refused(app):
    http = TestClient(app, base_url="http://127.0.0.1:8017")
    for host in ("evil.com@localhost", "localhost:80:80", "localhost/x", "localhost#", "localhost ", ""):
        assert http.get("/", headers={"Host": host}).status_code in {400, 421}
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:8017"):
        assert http.get("/", headers={"Host": host}).status_code == 200


def test_with_a_password_every_address_of_the_page_needs_it():
    http = TestClient(create_app(model(), password="gehe é:im"), base_url="http://box.example")
    for address in ("/", "/api/sessions", "/app.js", "/api/nothing"):
        answer = http.get(address)
        assert "the password is missing or wrong" in refusal(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Basic")
    for wrong in (
        "Basic",
        "Basic !!",
        "Bearer abc",
        "Basic " + base64.b64encode(b"gehe \xc3\xa9:im").decode(),
    ):
        assert http.get("/", headers={"Authorization": wrong}).status_code == 401
    assert http.get("/", auth=("any", "gehe")).status_code == 401
    right = {"Authorization": "Basic " + base64.b64encode("any:gehe é:im".encode()).decode()}
    assert http.get("/", headers=right).status_code == 200
    assert http.post("/api/sessions", headers=right).status_code == 201


@pytest.mark.parametrize("limits", [Limits(bodies_bytes=50_000)])
def test_uploads_at_the_same_time_share_a_budget_that_is_given_back(page):
    content, _ = picture(0)
    assert "too many uploads" in refusal(page.upload(b"x" * 60_000), 503)
    assert page.http.app.state.bodies.held == 0
    assert page.upload(content).status_code == 201
    assert page.http.app.state.bodies.held == 0


def prompts(mask, *painted, boxes=()):
    """Nothing believed, and what is painted: (number, rows, columns)."""
    labels, hints = np.full(mask.shape, 255, np.uint8), np.zeros(mask.shape, np.uint8)
    for number, rows, columns in boxes:
        hints[rows, columns] = 1 + number
    for number, rows, columns in painted:
        labels[rows, columns], hints[rows, columns] = number, 1
    return png(np.concatenate([labels, hints]))


def completed(page, id, body):
    return page.http.post(f"/api/images/{id}/complete", content=body)


def test_a_stroke_is_completed_and_nothing_is_settled(page):
    image, mask = picture(0)
    id = page.image(image)
    page.add_class("square")
    before = page.state()
    answer = completed(page, id, prompts(mask, (1, slice(20, 24), slice(30, 45))))
    assert iou(read_png(answer.content) == 1, mask == 1) > 0.9
    assert page.state() == {**before, "bytes": page.state()["bytes"]}
    boxed = completed(page, id, prompts(mask, boxes=[(1, slice(6, 45), slice(15, 60))]))
    assert iou(read_png(boxed.content) == 1, mask == 1) > 0.85


def test_a_prediction_helps_to_complete_strokes_on_it_until_the_image_is_reopened(annotated, monkeypatch):
    page, _, other, _ = annotated
    given = []
    run = pages.complete
    monkeypatch.setattr(pages, "complete", lambda *of: given.append(of[2]) or run(*of))
    body = prompts(np.zeros((60, 40)), (1, slice(20, 24), slice(15, 18)))
    completed(page, other, body)
    shown = page.labels(other)
    completed(page, other, body)
    page.settle(other, shown)
    completed(page, other, body)
    page.http.delete(f"/api/images/{other}/labels")
    completed(page, other, body)
    assert given[0] is given[3] is None  # strokes do not wait for the network
    assert given[1] is not None
    assert given[2] is not None


@pytest.mark.parametrize(
    ("labels", "hints", "message"),
    [
        (np.zeros((2, 2)), np.zeros((2, 2)), "the image is 70 x 100 pixels"),
        (np.full((50, 70), 9), np.zeros((50, 70)), r"holds class ids \[9\]"),
        (np.zeros((50, 70)), np.full((50, 70), 7), "hints of strokes on a.png must be 0 to 2, got 7"),
    ],
)
def test_strokes_that_cannot_be_are_refused(page, labels, hints, message):
    id = page.image(picture(0)[0])
    page.add_class("square")
    body = png(np.concatenate([labels, hints]).astype(np.uint8))
    assert re.search(message, refusal(completed(page, id, body)))


def test_small_pictures_and_masks_are_alike_in_size(page):
    image, mask = picture(0, hw=(500, 301), box=(100, 400, 50, 250))
    id = page.image(image, "large.png")
    page.add_class("square")
    page.settle(id, mask)
    small = Image.open(io.BytesIO(page.http.get(f"/api/images/{id}/picture", params={"small": True}).content))
    labels = page.labels(id, small=True)
    assert labels.shape == small.size[::-1] == (167, 101)
    np.testing.assert_array_equal(labels, mask[::3, ::3])


def test_a_file_comes_back_as_it_was_sent(page):
    content = png(picture(0)[0])
    id = page.image(content)
    for address in ("file", "picture"):
        assert page.http.get(f"/api/images/{id}/{address}").content == content


def test_advice_proposes_unlike_images_and_follows_the_expected_iou(annotated):
    page, _, other, _ = annotated
    third = page.image(picture(4)[0], "third.png")
    assert page.http.get("/api/advice").json() == {"next": [], "expected": [[1, {}]]}
    for id in (other, third):
        found = page.http.get(f"/api/images/{id}/quality").json()
        assert found["verdict"] in ("good", "check", "bad")
        assert found["scores"]["square"] == pytest.approx(found["quality"])
    assert sorted(page.http.get("/api/advice").json()["next"]) == sorted([other, third])
    page.settle(other, np.zeros((60, 40), np.uint8), "accepted")
    assert page.http.get("/api/advice").json()["next"] == [third]
    page.http.delete(f"/api/images/{other}/labels")
    page.settle(third, picture(4)[1])
    page.http.get(f"/api/images/{other}/quality")
    found = page.http.get("/api/advice").json()
    assert found["next"] == [other]
    (one, none), (two, known) = found["expected"]
    assert (one, none, two) == (1, {}, 2)
    assert 0 < known["square"] <= 1


def test_a_mask_that_was_drawn_on_an_older_one_is_refused_and_one_that_is_sent_twice_is_not(page):
    image, mask = picture(0)
    id = page.image(image)
    page.add_class("square")

    def send(mask, edit):
        params = {"role": "support", "edit": edit}
        return page.http.put(f"/api/images/{id}/labels", params=params, content=png(mask))

    first = send(mask, 0)
    assert first.json()["edit"] == page.state()["images"][0]["edit"] > 0
    assert "was changed in another tab" in refusal(send(1 - mask, 0), 409)
    assert send(mask, 0).json() == first.json()
    assert send(1 - mask, first.json()["edit"]).json()["edit"] > first.json()["edit"]
    np.testing.assert_array_equal(page.labels(id), 1 - mask)
