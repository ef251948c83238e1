"""Every view of every image goes through the backbone once, whoever asks and whatever is killed."""

import gc
import threading
import time
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from fewseg.data.transforms import EvalView, TrainView
from fewseg.engine.features import FeatureStore

SIDE = 33
VIEWS = (EvalView(SIDE), TrainView(size=SIDE, rotate=0.0, blur=0.0))
"""Those of ``make_store``."""


def test_each_view_goes_through_the_backbone_once(make_store, backbone, data):
    store, ids = make_store(), data.source.ids[:11]
    store.ensure(ids, progress=False)
    assert backbone.seen == 22
    store.ensure(ids, progress=False)
    assert backbone.seen == 22
    store.ensure(data.source.ids[:13], [0], progress=False)
    assert backbone.seen == 24


def test_what_comes_out_is_what_the_backbone_gives(make_store, backbone, data):
    store, ids = make_store(), data.source.ids[:10]
    store.ensure(ids, progress=False)
    wanted = [ids[7], ids[2]]
    for view in (0, 1):
        pixels = [store.view(id, view) for id in wanted]
        direct = backbone(torch.stack([image for image, _ in pixels]))
        found = store.features(wanted, view)
        assert found.image_size == (SIDE, SIDE)
        assert list(found.maps) == list(direct.maps)
        for level, maps in direct.maps.items():
            torch.testing.assert_close(found[level], maps, atol=1e-5, rtol=1e-5)
        assert torch.equal(store.labels(wanted, view), torch.stack([labels for _, labels in pixels]))


def test_view_0_is_the_plain_one_and_the_others_are_random_but_fixed(make_store, data):
    store, id = make_store(), data.source.ids[0]
    plain, labels = EvalView(SIDE)(data.source.read_image(id), data.source.read_labels(id))
    assert torch.equal(store.view(id, 0)[0], plain)
    assert torch.equal(store.view(id, 0)[1], labels)
    assert torch.equal(store.view(id, 1)[0], make_store().view(id, 1)[0])
    assert not torch.equal(store.view(id, 1)[0], plain)
    assert not torch.equal(make_store(seed=1).view(id, 1)[0], store.view(id, 1)[0])
    three = make_store(views=(*VIEWS, VIEWS[1]))
    assert not torch.equal(three.view(id, 2)[0], three.view(id, 1)[0])


def test_bfloat16_is_stored_in_half_the_bytes(make_store, backbone, data):
    store, ids = make_store(dtype=torch.bfloat16), data.source.ids[:2]
    store.ensure(ids, [0], progress=False)
    pixels = torch.stack([store.view(id, 0)[0] for id in ids])
    found = store.features(ids)
    for level, maps in backbone(pixels).maps.items():
        assert found[level].dtype == torch.bfloat16
        assert torch.equal(found[level], maps.to(torch.bfloat16))
    with safe_open(store.folder / "2.safetensors", framework="pt") as file:  # the plain view of the second
        assert torch.equal(file.get_tensor("layer3"), found["layer3"][1].permute(1, 2, 0))
        assert file.get_tensor("labels").dtype == torch.uint8


class Killed:
    """A source that is killed when it is to read its n-th picture."""

    def __init__(self, source, reads):
        self.source, self.left = source, reads

    def __getattr__(self, name):
        return getattr(self.source, name)

    def read_image(self, id):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.source.read_image(id)


def test_a_killed_run_leaves_whole_rows_that_the_next_one_keeps(make_store, backbone, data):
    ids = data.source.ids[:12]
    with pytest.raises(KeyboardInterrupt):
        make_store(source=Killed(data.source, 10)).ensure(ids, [0], progress=False)
    assert backbone.seen == 10
    store = make_store()
    store.ensure(ids, [0], progress=False)
    assert backbone.seen == 12
    direct = backbone(torch.stack([store.view(id, 0)[0] for id in ids]))
    torch.testing.assert_close(store.features(ids)["layer3"], direct["layer3"], atol=1e-5, rtol=1e-5)


def test_other_weights_views_seeds_types_or_data_sets_have_rows_of_their_own(make_store, config, data):
    other = replace(config.backbone, seed=1).build()
    stores = [
        make_store(),
        make_store(trunk=other),
        make_store(views=[EvalView(SIDE)]),
        make_store(seed=1),
        make_store(dtype=torch.bfloat16),
        make_store(source=Relabelled(data.source)),
    ]
    assert len({store.folder for store in stores}) == len(stores)


class Relabelled:
    """The images of another source under another digest."""

    def __init__(self, source):
        self.source = source

    def __getattr__(self, name):
        return getattr(self.source, name)

    def digest(self):
        return "different"


def _fill(folder, ids, source, config, barrier, seen):
    torch.set_num_threads(1)  # a fork has no others
    backbone = config.build()
    backbone.register_forward_pre_hook(lambda _, a: seen.put(len(a[0])) if a[0].any() else None)
    store = FeatureStore(backbone, source, list(VIEWS), folder=folder, dtype=torch.float32)
    barrier.wait()
    store.ensure(ids, progress=False)
    assert store.features(ids).maps


def test_two_processes_share_the_work_and_make_each_row_once(make_store, data, config, tmp_path):
    context = torch.multiprocessing.get_context("fork")
    barrier, seen = context.Barrier(2), context.Queue()
    arguments = (tmp_path, data.source.ids, data.source, config.backbone, barrier, seen)
    both = [context.Process(target=_fill, args=arguments) for _ in range(2)]
    for process in both:
        process.start()
    assert sum(seen.get(timeout=60) for _ in range(60)) == 60
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert seen.empty()
    store, ids = make_store(), data.source.ids[-2:]
    direct = store.backbone(torch.stack([store.view(id, 1)[0] for id in ids]))
    torch.testing.assert_close(store.features(ids, 1)["layer3"], direct["layer3"], atol=1e-5, rtol=1e-5)


def test_rows_that_another_process_was_killed_over_are_made_by_this_one(make_store, backbone, data):
    store, ids = make_store(), data.source.ids[:2]
    rows = [store._row(id, 0) for id in ids]
    context = torch.multiprocessing.get_context("fork")
    claimed = context.Event()

    def hold():
        with store._claimed(rows):
            claimed.set()
            time.sleep(60)

    other = context.Process(target=hold)
    other.start()
    assert claimed.wait(20)
    timer = threading.Timer(0.3, other.kill)
    timer.start()
    store.ensure(ids, [0], progress=False)
    assert backbone.seen == 2
    other.join(20)


def test_a_temporary_store_is_gone_with_its_object_and_one_of_a_killed_run_with_the_next(
    make_store, data, tmp_path
):
    temporary = make_store(temporary=True)
    temporary.ensure(data.source.ids[:1], progress=False)
    left = tmp_path / "temporary-of-a-killed-run"
    left.mkdir()
    (left / "used").touch()
    make_store().ensure(data.source.ids[:1], progress=False)
    assert not left.exists()
    assert temporary.features(data.source.ids[:1]).maps
    folder = temporary.folder
    del temporary
    gc.collect()
    assert not folder.exists()


def test_views_of_two_sizes_are_refused(make_store):
    with pytest.raises(ValueError, match=r"must have one size, got \[33, 41\]"):
        make_store(views=[EvalView(SIDE), EvalView(41)])


def test_rows_that_were_not_computed_are_reported(make_store, data):
    store = make_store()
    store.ensure(data.source.ids[:1], [0], progress=False)
    with pytest.raises(ValueError, match=r"features of \['train-00001'\] were not computed: call ensure"):
        store.features(data.source.ids[:2])
    with pytest.raises(ValueError, match="were not computed"):
        store.labels(data.source.ids[:1], view=1)
