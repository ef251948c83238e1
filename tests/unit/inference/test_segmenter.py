from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from fewseg.annotations.values import AnnotatedImage
from fewseg.inference import Model, Segmenter, Tiles
from fewseg.inference.supports import SupportImage, precision_of_supports
from fewseg.methods.registry import METHODS
from fewseg.ops.geometry import letterbox, place, place_labels, restore
from fewseg.types import DataError, EncodedShots
from small_segmenters import SIZE, iou, model, picture, segmenter, with_squares


def test_a_thing_is_found_on_another_image():
    it = with_squares()
    image, mask = picture(9, hw=(60, 40), box=(5, 30, 8, 30))
    found = it.segment(image)
    assert found.size == (60, 40)
    assert found.labels.dtype == np.uint8
    assert iou(found.mask("square"), mask == 1) > 0.45
    assert found.probability.shape == (1, 60, 40)
    assert 0 <= found.presence["square"] <= 1


@pytest.mark.parametrize("name", [n for n in METHODS if n != "matcher"])
def test_every_method_segments_two_classes_of_any_number_of_shots(name):
    it = segmenter(name)
    first, second = picture(1), picture(2, box=(0, 20, 0, 30), colour=(20, 240, 40))
    it.add_class("red", [first[0]], [first[1]])
    it.add_class("green", [second[0], picture(3, colour=(20, 240, 40))[0]], [second[1], picture(3)[1]])
    found = it.segment(picture(4)[0])
    assert found.classes == ("red", "green")
    assert set(np.unique(found.labels)) <= {0, 1, 2}
    assert np.isfinite(found.probability).all()
    assert (found.probability.sum(axis=0) <= 1 + 1e-5).all()


def test_the_answer_is_that_of_the_method_and_of_the_letterbox():
    """The same numbers written out with extract, encode_support and segment."""
    own = model()
    image, mask = picture(0)
    query = picture(5, hw=(33, 80), box=(3, 20, 30, 60))[0]
    it = segmenter()
    it.add_class("square", image, mask)

    def view(pixels):
        box = letterbox(pixels.shape[:2], SIZE)
        return place(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, box)[None], box

    with torch.inference_mode():
        seen, box = view(image)
        support = EncodedShots(
            features=own.method.extract(seen), masks=place_labels(torch.from_numpy(mask), box)[None, None]
        )
        state = own.method.encode_support(support)
        seen, box = view(query)
        logits = restore(own.method.segment(own.method.extract(seen), state), box)
    found = it.segment(query)
    torch.testing.assert_close(torch.from_numpy(found.probability[0]), logits.softmax(1)[0, 1])
    assert (found.labels == logits.argmax(1)[0].numpy()).mean() > 0.999


def test_an_encoded_image_stands_for_the_image_and_the_backbone_runs_once(monkeypatch):
    it = with_squares()
    image = picture(9)[0]
    encoded = it.encode(image)
    passes = []
    run = it.model.method.backbone.forward
    monkeypatch.setattr(it.model.method.backbone, "forward", lambda x: passes.append(len(x)) or run(x))
    again = it.segment(encoded)
    assert passes == []
    fresh = it.segment(image)
    assert passes == [1]
    assert (again.labels == fresh.labels).all()


def test_several_classes_on_one_image_are_one_image():
    it = segmenter()
    image, mask = picture(0)
    other = np.roll(mask, 15, axis=1) * (1 - mask)
    encoded = it.add_image(image, {"a": mask, "b": other})
    assert len(it.supports.images) == 1
    it.add_class("c", encoded, (mask == 0) & (other == 0))
    assert it.classes == ("a", "b", "c")
    assert len(it.supports.images) == 1
    support = it.supports.encoded(True)
    assert support.way_of == (1, 2, 3)
    inside = support.masks[0][support.masks[0] != 255]
    assert set(inside.tolist()) == {1, 2, 3}


def test_a_new_mask_of_the_same_image_replaces_the_old():
    it = segmenter()
    image, mask = picture(0)
    it.add_class("a", image, mask)
    before = it.segment(image).labels
    done = it.add_class("a", image, 1 - mask)
    assert done.shots == 1
    assert (it.segment(image).labels != before).mean() > 0.5


def test_the_own_class_lies_on_top_where_two_masks_overlap():
    it = segmenter()
    image, mask = picture(0)
    it.add_image(image, {"a": mask, "b": np.ones_like(mask)})
    support = it.supports.encoded(True)
    assert (support.masks[0, 0] == 1).sum() > 0
    assert not (support.masks[0, 1] == 1).any()


def test_negatives_are_background_of_prototypes_and_lower_presence():
    it = with_squares()
    distractor, _ = picture(3, colour=(30, 240, 30))
    before = it.segment(distractor).presence["square"]
    done = it.add_class("square", distractor, None)
    assert (done.shots, done.negatives) == (2, 1)
    assert it.supports.encoded(True).masks.shape[1] == 3
    after = it.segment(distractor)
    assert after.presence["square"] == 0 < before
    assert not after.mask("square").any()
    assert after.absent == ("square",)


def test_an_image_with_unsure_pixels_of_a_class_is_not_known_not_to_show_it():
    it = with_squares()
    distractor, _ = picture(3, colour=(30, 240, 30))
    encoded = it.encode(distractor)
    empty = torch.zeros(distractor.shape[:2], dtype=torch.uint8)
    unsure = empty.clone()
    unsure[:20] = 255
    assert SupportImage.of(encoded, {"square": empty}).is_negative("square")
    assert not SupportImage.of(encoded, {"square": unsure}).is_negative("square")
    assert not SupportImage.of(encoded, {"square": unsure}).shows("square")


def test_an_image_that_shows_a_class_is_not_said_to_show_none_in_passing(tmp_path):
    it = with_squares()
    before = it.supports
    with pytest.raises(ValueError, match=r"the image has no masks.* already an example of 'square'"):
        it.add_image(picture(0)[0], {})
    Image.fromarray(picture(0)[0]).save(tmp_path / "a.png")
    twice = [
        AnnotatedImage(image=tmp_path / "a.png", size=(50, 70), masks=masks)
        for masks in ({"square": picture(0)[1]}, {})
    ]
    with pytest.raises(ValueError, match=r"a\.png has no masks"):
        segmenter().add_annotated(twice)
    assert it.supports is before
    it.add_class("square", picture(0)[0], None)  # said of the class itself, the last word counts
    assert (it.support("square").shots, it.support("square").negatives) == (1, 1)
    it.add_image(picture(0)[0], {})
    assert it.support("square").negatives == 1


def test_a_negative_of_all_stays_one_of_the_classes_that_it_gets_no_mask_of():
    it = with_squares()
    image, mask = picture(3, colour=(30, 240, 30))
    it.add_image(image, {})
    done = it.add_class("green", image, mask)
    assert (done.shots, done.negatives) == (1, 0)
    assert it.support("square").negatives == 1
    it.add_class("square", image, 1 - mask)  # contradicted
    assert (it.support("square").shots, it.support("square").negatives) == (3, 0)


def test_what_one_image_says_of_a_class_can_be_removed_and_nothing_else_is_taken_for_it():
    it = with_squares()
    it.add_class("green", *picture(5, colour=(30, 240, 30)))
    negative = it.add_image(picture(3)[0], {})
    before = it.supports
    with pytest.raises(ValueError, match="unknown image 'bogus' of 'square'; its images are "):
        it.remove("square", "bogus")
    assert it.supports is before
    it.remove("square", negative.digest)
    assert it.support("square").negatives == 0
    assert it.support("green").negatives == 1
    it.remove("green", negative.digest)
    assert len(it.supports.images) == 3


def test_a_pair_method_takes_no_negative_into_its_state():
    it = with_squares("pfenet")
    it.add_image(picture(3)[0], {})
    assert it.supports.encoded(it.model.takes_negatives).masks.shape[1] == 2
    assert it.segment(picture(4)[0]).presence["square"] >= 0


@pytest.mark.parametrize("masks", [None, np.zeros((50, 70), np.uint8)])
def test_a_class_of_negatives_only_is_refused(masks):
    it = with_squares()
    with pytest.raises(ValueError, match="no mask of 'crack' has foreground"):
        it.add_class("crack", picture(0)[0], masks)
    assert it.classes == ("square",)


def test_wrong_calls_are_reported_and_change_nothing():
    it = with_squares()
    before = it.supports
    image, mask = picture(0)
    with pytest.raises(DataError, match="70 x 50 pixels and its mask 50 x 70"):
        it.add_class("a", image, mask.T)
    for name in ("", 5):
        with pytest.raises(ValueError, match="texts that are not empty"):
            it.add_class(name, image, mask)
    with pytest.raises(DataError, match="does not exist"):
        it.add_class("a", [image, "nowhere.png"], [mask, mask])
    assert it.supports is before


def test_classes_and_images_can_be_removed():
    it = with_squares()
    image, mask = picture(7)
    done = it.add_class("other", image, mask)
    it.remove("square")
    assert it.classes == ("other",)
    with pytest.raises(ValueError, match="unknown class 'square'"):
        it.remove("square")
    it.add_class("other", picture(8)[0], None)
    with pytest.raises(ValueError, match="only negatives"):
        it.remove("other", done.digests[0])
    it.clear()
    assert it.classes == ()


def test_a_saved_support_set_gives_the_same_answer_to_the_last_bit(tmp_path):
    it = with_squares()
    it.add_class("dark", picture(4)[0], 1 - picture(4)[1])
    it.add_image(picture(6)[0], {})
    query = picture(9)[0]
    it.save_supports(tmp_path / "set.safetensors")
    other = segmenter()
    other.load_supports(tmp_path / "set.safetensors")
    assert other.classes == it.classes
    assert torch.equal(other.segment(query).margins, it.segment(query).margins)


def test_a_support_set_of_another_model_is_refused(tmp_path):
    path = tmp_path / "set.safetensors"
    with_squares().save_supports(path)
    for other in (segmenter(seed=3), segmenter(size=73), segmenter("panet"), segmenter(views=Tiles())):
        with pytest.raises(DataError, match="was encoded by the model"):
            other.load_supports(path)
        with pytest.raises(ValueError, match="was encoded by the model"):
            other.encode(segmenter().encode(picture(0)[0]))


@pytest.mark.parametrize("content", [b"", b"{}", b"PK\x03\x04" + bytes(50), None])
def test_a_broken_support_set_is_reported(tmp_path, content):
    path = tmp_path / "set.safetensors"
    with pytest.raises(DataError, match="there is no support set at"):
        segmenter().load_supports(path)
    if content is None:
        with_squares().save_supports(path)
        content = path.read_bytes()[:-100]
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a complete support set"):
        segmenter().load_supports(path)


@pytest.mark.parametrize("header", ["null", "[]", "7", '"x"', "NaN", "{}", "[" * 100_000])
def test_a_support_set_with_a_broken_header_is_reported(tmp_path, header):
    path = tmp_path / "set.safetensors"
    with_squares().save_supports(path)
    save_file(load_file(path), path, metadata={"fewseg-supports": header})
    assert precision_of_supports(path) == "fp32"
    with pytest.raises(DataError, match="not a complete support set"):
        segmenter().load_supports(path)


def test_a_threshold_of_a_half_is_the_label_map_and_higher_ones_mark_less():
    found = with_squares().segment(picture(9)[0])
    assert (found.at(0.5).labels == found.labels).all()
    areas = [(found.at(t).labels == 1).sum() for t in (0.1, 0.5, 0.9)]
    assert areas == sorted(areas, reverse=True)
    assert ((found.at(0.7).labels == 1) == (found.probability[0] > 0.7)).mean() > 0.999


def test_threads_that_segment_while_others_annotate_each_get_a_whole_answer():
    it = with_squares(shots=1)
    query = picture(9)[0]
    expected = {1: it.segment(query).labels}
    both = it.empty()
    both.add_class("square", *picture(0))
    both.add_class("b", *picture(20, colour=(20, 200, 20)))
    expected[2] = both.segment(query).labels
    wrong = []

    def look():
        for _ in range(15):
            found = it.segment(query)
            if not (found.labels == expected[len(found.classes)]).all():
                wrong.append(found.classes)

    def change():
        for _ in range(15):
            it.add_class("b", *picture(20, colour=(20, 200, 20)))
            it.remove("b")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda work: work(), (look, look, change)))
    assert not wrong


def test_a_small_thing_on_a_large_image_is_found_in_tiles():
    tiles = segmenter(views=Tiles(overlap=0.3))
    image, mask = picture(0, hw=(200, 300), box=(100, 130, 200, 230))
    tiles.add_class("square", image, mask)
    other, truth = picture(1, hw=(260, 240), box=(30, 60, 150, 180))
    found = tiles.segment(other)
    assert found.labels.shape == (260, 240)
    assert found.probability[0][truth == 1].mean() > found.probability[0][truth == 0].mean() + 0.03


def test_a_large_image_has_the_same_labels_in_strips(monkeypatch):
    it = with_squares()
    it.add_class("dark", picture(4)[0], 1 - picture(4)[1])
    image = picture(9, hw=(301, 203), box=(50, 200, 40, 150))[0]
    whole = it.segment(image).labels
    monkeypatch.setattr("fewseg.inference.segmentation._STRIP", 1000)
    assert (it.segment(image).labels == whole).mean() > 0.9999


def test_a_prediction_for_the_writers_has_scores_and_facts():
    found = with_squares().segment(picture(9)[0]).prediction("a/b.png", probability=True)
    assert found.classes == ("square",)
    assert 0 <= found.scores[0] <= 1
    assert found.probability.shape == (1, 50, 70)
    assert found.facts["presence"]["square"] >= 0


@pytest.mark.parametrize("name", ["matcher", "pfenet", "scl-pfenet", "canet", "sdaanet", "srpnet"])
def test_bf16_gives_nearly_the_same_masks_and_its_supports_are_its_own(name, tmp_path):
    exact = model(name)
    low = Model(exact.method, exact.config, SIZE, precision="bf16")
    assert low.digest != exact.digest
    first, second = Segmenter(exact), Segmenter(low)
    for it in (first, second):
        for k in range(2):
            it.add_class("square", [picture(k)[0]], [picture(k)[1]])
    found = [it.segment(picture(9)[0]) for it in (first, second)]
    assert all(f.margins.dtype == torch.float32 for f in found)
    assert not torch.equal(found[0].margins, found[1].margins)
    assert (found[0].margins - found[1].margins).abs().max() < 0.1 * found[0].margins.abs().max() + 0.05
    assert found[1].quality.score == pytest.approx(found[0].quality.score, abs=0.1)
    second.save_supports(tmp_path / "low.safetensors")
    again = Segmenter(low)
    again.load_supports(tmp_path / "low.safetensors")
    assert torch.equal(again.segment(picture(9)[0]).margins, found[1].margins)
    with pytest.raises(ValueError, match="features of different models are incompatible"):
        Segmenter(exact).load_supports(tmp_path / "low.safetensors")


def test_an_unknown_precision_is_reported():
    with pytest.raises(ValueError, match="precision must be 'fp32' or 'bf16', got 'fp8'"):
        Model(model().method, model().config, SIZE, precision="fp8")


def deep(seed, scale=1, hw=(50, 70)):
    """A square of 16 bits, of which a camera uses the lowest 3000 values."""
    image, mask = picture(seed, hw)
    return image[..., 0].astype(np.uint16) * 11 * scale, mask


def test_supports_of_16_bits_set_the_range_of_all_later_images(tmp_path, caplog):
    it = segmenter()
    it.add_class("square", *map(list, zip(deep(0), deep(1), strict=True)))
    both = np.concatenate([deep(0)[0], deep(1)[0]])
    assert it.value_range == tuple(np.percentile(both, [0.1, 99.9]))
    low, high = it.value_range

    def as_bytes(values):
        return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)

    plain = segmenter()
    plain.add_class("square", [as_bytes(deep(k)[0]) for k in range(2)], [deep(k)[1] for k in range(2)])
    for query in (deep(5)[0], deep(5)[0] // 4):  # a darker image stays dark
        assert torch.equal(it.segment(query).margins, plain.segment(as_bytes(query)).margins)
    it.save_supports(tmp_path / "s.safetensors")
    again = segmenter()
    again.load_supports(tmp_path / "s.safetensors")
    assert again.value_range == it.value_range
    it.add_class("square", *deep(2, scale=9))
    assert it.value_range == (low, high)
    assert it.empty().value_range is None
    it.clear()
    assert it.value_range is None


def test_a_fixed_range_stays_and_is_checked(tmp_path):
    it = Segmenter(model(), value_range=(0, 3000))
    it.add_class("square", *deep(0))
    assert it.value_range == it.empty().value_range == (0, 3000)
    it.clear()
    assert it.value_range == (0, 3000)
    it.add_class("square", *deep(0))
    it.save_supports(tmp_path / "s.safetensors")
    with pytest.raises(DataError, match="encoded with the value range"):
        Segmenter(model(), value_range=(0, 4095)).load_supports(tmp_path / "s.safetensors")
    for wrong in ((3, 3), (0, float("inf")), (float("nan"), 1)):
        with pytest.raises(ValueError, match="two finite numbers, the lower one first"):
            Segmenter(model(), value_range=wrong)


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_a_list_gives_a_result_for_each_image_and_a_bad_one_ends_nothing(tmp_path, batch):
    it = with_squares()
    files = []
    for k in range(5):
        files.append(tmp_path / f"{k}.png")
        Image.fromarray(picture(10 + k, hw=(40 + k, 60))[0]).save(files[-1])
    (tmp_path / "broken.png").write_bytes(b"no image")
    other = Segmenter(model(seed=1)).encode(picture(3)[0])
    bad = [tmp_path / "broken.png", str(tmp_path / "none.png"), 7, other]
    images = [
        bad[0],
        files[0],
        it.encode(str(files[1])),
        bad[1],
        files[2],
        bad[2],
        str(files[3]),
        bad[3],
        files[4],
    ]
    found = it.segment(images, batch=batch)
    assert len(found) == len(images)
    for given, result in zip(images, found, strict=True):
        if any(given is own for own in bad):
            assert isinstance(result, DataError)
        else:
            single = it.segment(given)
            assert np.array_equal(result.labels, single.labels)
            assert torch.allclose(result.margins, single.margins, atol=1e-4)
            assert result.quality is not None
    assert "broken.png" in str(found[0])
    assert "none.png does not exist" in str(found[3])
    assert "image 5 must be a path" in str(found[5])
    assert "encode it with this one" in str(found[7])
    assert it.segment([]) == []
    assert it.segment((files[0],), quality=False)[0].quality is None
    with pytest.raises(ValueError, match="batch must be 1 or more, got 0"):
        it.segment(files, batch=0)


def test_a_list_goes_on_where_memory_ends_for_one_image(monkeypatch):
    it = with_squares()
    step = type(it.model).encode

    def small(self, images):
        if any(image.size[1] > 100 for image in images):
            raise MemoryError
        return step(self, images)

    monkeypatch.setattr(type(it.model), "encode", small)
    found = it.segment([picture(5)[0], picture(6, hw=(50, 120))[0], picture(7)[0]], batch=3)
    assert [type(own).__name__ for own in found] == ["Segmentation", "DataError", "Segmentation"]
    assert "image 1: there is not enough memory" in str(found[1])


def test_numbers_that_differ_between_mask_files_are_never_one_class(tmp_path):
    paths = [tmp_path / f"{k}.png" for k in range(2)]
    for k, path in enumerate(paths, 1):
        Image.fromarray(picture(0)[1] * k).save(path)
    it = segmenter()
    with pytest.raises(DataError, match=r"1\.png holds the number 2 and .*0\.png the number 1"):
        it.add_class("square", [picture(k)[0] for k in range(2)], paths)
    assert it.classes == ()


def test_255_of_an_annotation_file_is_ignored_also_beside_no_pixel_of_the_class(tmp_path):
    image, mask = picture(0)
    Image.fromarray(image).save(tmp_path / "x.png")
    ignored = np.where(mask == 1, 255, 0).astype(np.uint8)
    it = with_squares()
    found = AnnotatedImage(
        image=tmp_path / "x.png", size=mask.shape, masks={"square": ignored, "other": mask.astype(np.uint8)}
    )
    it.add_annotated([found])
    (own,) = [support for support in it.supports.images if "other" in support.masks]
    assert not own.shows("square")
    assert own.shows("other")
