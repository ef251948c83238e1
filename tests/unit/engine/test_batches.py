"""Batch s is a function of s alone, and the processes of a run take turns over the same episodes."""

import pytest
import torch

from fewseg.data.draws import Draws
from fewseg.data.episodes import TrainingSampler
from fewseg.data.transforms import EvalView, TrainView, way_labels
from fewseg.engine.batches import CachedBatches, FreshBatches, base_labels

VIEW = TrainView(size=33, scale=(0.9, 1.3), rotate=10.0)


@pytest.fixture(params=["cached", "fresh"])
def make(request, sampler, store, data):
    """(batch, rank, world, seed) -> batches of either kind."""

    def build(batch=2, rank=0, world=1, seed=5):
        if request.param == "cached":
            return CachedBatches(sampler, store, batch=batch, seed=seed, rank=rank, world=world)
        return FreshBatches(
            sampler, data.source, VIEW, batch=batch, seed=seed, workers=0, rank=rank, world=world
        )

    return build


def tensors(batch):
    """Support and query contents (B, ...) and masks, of images or of features alike."""
    if hasattr(batch, "query_images"):
        contents = [batch.support_images, batch.query_images]
    else:
        count = len(batch.query_masks)
        contents = [m.unflatten(0, (count, -1)) for m in batch.support.features.maps.values()]
        contents += list(batch.query.maps.values())
    masks = batch.support_masks if hasattr(batch, "support_masks") else batch.support.masks
    return [*contents, masks, batch.query_masks]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def test_a_stream_from_the_middle_is_the_rest_of_the_stream_from_the_start(make):
    whole = list(make().stream(0, 4))
    rest = list(make().stream(2, 4))
    assert (len(whole), len(rest)) == (4, 2)
    assert equal(whole[2], rest[0])
    assert equal(whole[3], rest[1])
    assert not equal(whole[0], whole[1])


def test_two_processes_cover_the_episodes_of_one_with_twice_the_batch(make):
    alone = [tensors(b) for b in make(batch=4).stream(1, 3)]
    ranks = [[tensors(b) for b in make(batch=2, rank=r, world=2).stream(1, 3)] for r in (0, 1)]
    for step, together in enumerate(alone):
        for part, whole in enumerate(together):
            for rank in (0, 1):
                assert torch.equal(ranks[rank][step][part], whole[rank::2])


def test_cached_views_are_all_drawn_and_the_seed_decides_which(make, sampler, store, request):
    if "fresh" in request.node.name:
        pytest.skip("fresh views are drawn anew")
    found = torch.cat([batch.query["layer3"] for batch in make(batch=4).stream(0, 5)])
    views = set()
    for step, maps in enumerate(found):
        query = sampler.episode(step).query
        views |= {v for v in (0, 1) if torch.equal(store.features([query], v)["layer3"][0], maps)}
    assert views == {0, 1}
    other = torch.cat([batch.query["layer3"] for batch in make(batch=4, seed=6).stream(0, 5)])
    assert not torch.equal(found, other)


def test_fresh_views_differ_each_time_an_image_comes_and_are_valid_pixels(sampler, data):
    stream = FreshBatches(sampler, data.source, VIEW, batch=4, seed=5, workers=0).stream(0, 6)
    seen = {}
    for step, batch in enumerate(stream):
        assert batch.support_images.shape == (4, 2, 3, 33, 33)
        assert float(batch.query_images.min()) >= 0
        assert float(batch.query_images.max()) <= 1
        assert set(batch.query_masks.unique().tolist()) <= {0, 1, 255}
        for row in range(4):
            seen.setdefault(sampler.episode(4 * step + row).query, []).append(batch.query_images[row])
    repeated = [views for views in seen.values() if len(views) > 1]
    assert repeated
    for first, second, *_ in repeated:
        assert not torch.equal(first, second)


@pytest.mark.parametrize("cached", [True, False])
def test_ignored_novel_pixels_are_255_in_supports_and_queries_and_else_background(data, store, cached):
    def masks(novel_pixels):
        chosen = TrainingSampler(data.train, data.split, min_area=20, seed=3, novel_pixels=novel_pixels)
        options = {"batch": 4, "seed": 5}
        if cached:
            batches = CachedBatches(chosen, store, **options)
        else:
            batches = FreshBatches(chosen, data.source, VIEW, workers=0, **options)
        *_, supports, queries = zip(*map(tensors, batches.stream(0, 4)), strict=True)
        return torch.cat(supports), torch.cat(queries)

    for plain, ignoring in zip(masks("background"), masks("ignored"), strict=True):
        changed = plain != ignoring
        assert changed.any()
        assert set(plain[changed].tolist()) == {0}
        assert set(ignoring[changed].tolist()) == {255}


@pytest.fixture
def several(data):
    return TrainingSampler(data.train, data.split, shots=2, min_area=20, seed=3, ways=2)


@pytest.fixture(params=["cached", "fresh"])
def both(request, sampler, several, store, data):
    """The same batches of one way and of two."""
    if request.param == "cached":
        streams = [CachedBatches(s, store, batch=3, seed=5) for s in (sampler, several)]
    else:
        streams = [FreshBatches(s, data.source, VIEW, batch=3, seed=5, workers=0) for s in (sampler, several)]
    return [next(stream.stream(2, 3)) for stream in streams]


def test_way_one_and_the_query_are_those_of_the_batch_of_one_way(both):
    (*one, masks, query_masks), (*two, masks_two, query_masks_two) = map(tensors, both)
    way_of = both[1].way_of if hasattr(both[1], "query_images") else both[1].support.way_of
    assert way_of == (1, 1, 2, 2)
    assert all((masks_two[row, k] == way).any() for row in range(3) for k, way in enumerate(way_of))
    levels = len(one) // 2  # the supports' contents, then the queries'
    for first, second in zip(one[:levels], two[:levels], strict=True):
        assert torch.equal(first, second[:, :2])
    for first, second in zip(one[levels:], two[levels:], strict=True):
        assert torch.equal(first, second)
    for first, second in ((masks, masks_two[:, :2]), (query_masks, query_masks_two)):
        assert torch.equal(first == 1, second == 1)
        assert torch.equal(first == 255, second == 255)


@pytest.mark.parametrize("ways", [1, 2])
def test_supports_and_query_are_those_of_the_sampler_with_masks_of_its_classes(
    sampler, several, store, data, ways
):
    """With the plain view alone the contents are known."""

    class Plain:
        views = (EvalView(33),)
        rows = staticmethod(store.rows)

    chosen, images = (sampler, several)[ways - 1], 2 * ways
    batch = next(CachedBatches(chosen, Plain(), batch=3, seed=0).stream(4, 5))
    for row, step in enumerate((12, 13, 14)):
        spec = chosen.episode(step)
        features = batch.support.features.select(slice(images * row, images * (row + 1)))
        assert torch.equal(features["layer3"], store.features(list(spec.all_supports))["layer3"])
        assert torch.equal(batch.query["layer2"][row], store.features([spec.query])["layer2"][0])
        for found, id in zip(
            (*batch.support.masks[row], batch.query_masks[row]), (*spec.all_supports, spec.query), strict=True
        ):
            assert torch.equal(found, way_labels(data.source.read_labels(id), spec.classes))


def test_a_crop_keeps_the_class_that_its_image_was_drawn_for(several, data):
    kept = []

    class Recording:
        def __call__(self, image, labels, draws, keep):
            kept.append(keep)
            return VIEW(image, labels, draws, keep)

    next(FreshBatches(several, data.source, Recording(), batch=1, seed=5, workers=0).stream(4, 5))
    first, second = several.episode(4).classes
    assert kept == [first, first, second, second, first]


def test_a_pair_is_named_by_its_class_its_query_and_the_view_that_comes_again(make, sampler, request):
    names = {}
    for step, batch in enumerate(make(batch=4).stream(0, 12)):
        assert (batch.pair_ids.dtype, batch.pair_ids.shape) == (torch.int64, (4,))
        for row, name in enumerate(batch.pair_ids.tolist()):
            spec = sampler.episode(4 * step + row)
            cached = "cached" in request.node.name
            view = Draws("view of step", 5, spec.index, -1).below(2) if cached else 0
            names.setdefault((spec.class_id, spec.query, view), set()).add(name)
    assert all(len(found) == 1 for found in names.values())
    assert len(set.union(*names.values())) == len(names) < 48  # some pairs came twice


def test_the_queries_labels_name_the_base_classes_alone(make, sampler):
    stream = make(batch=4).stream(0, 5)
    for step, batch in enumerate(stream):
        for place, (labels, mask) in enumerate(zip(batch.labels, batch.query_masks, strict=True)):
            (class_id,) = sampler.episode(4 * step + place).classes
            assert torch.equal(labels == class_id, mask == 1)
            assert torch.equal(labels == 255, mask == 255)
            assert set(labels.unique().tolist()) <= {0, 255, *sampler.classes}
    found = base_labels(torch.tensor([[0, 1, 2, 3, 255]], dtype=torch.uint8), (1, 3))
    assert found.tolist() == [[0, 1, 0, 3, 255]]
