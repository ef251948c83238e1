"""Every view of every image goes through the backbone once, whoever asks and whatever is killed."""

from dataclasses import replace

import pytest
import torch

from fewseg.data.transforms import EvalView, TrainView
from fewseg.engine.feature_store import FeatureStore

SIDE = 33
VIEWS = (EvalView(SIDE), TrainView(size=SIDE, rotate=0.0, blur=0.0))


@pytest.fixture
def backbone(config):
    """A backbone that counts the images that it is given, sizes asked for (all zeros) aside."""
    backbone = config.backbone.build()
    backbone.seen = 0

    def count(module, arguments):
        module.seen += int((arguments[0].abs().sum(dim=(1, 2, 3)) > 0).sum())

    backbone.register_forward_pre_hook(count)
    return backbone


@pytest.fixture
def make(backbone, data, tmp_path):
    """(changes) -> a store of two views in this test's folder."""

    def build(source=data.source, views=VIEWS, trunk=backbone, **changes):
        settings = {"folder": tmp_path, "dtype": torch.float32} | changes
        return FeatureStore(trunk, source, list(views), **settings)

    return build


def test_each_view_goes_through_the_backbone_once(make, backbone, data):
    store, ids = make(), data.source.ids[:11]
    store.ensure(ids, progress=False)
    assert backbone.seen == 22
    store.ensure(ids, progress=False)
    assert backbone.seen == 22
    store.ensure(data.source.ids[:13], [0], progress=False)
    assert backbone.seen == 24


def test_what_comes_out_is_what_the_backbone_gives(make, backbone, data):
    store, ids = make(), data.source.ids[:10]
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


def test_view_0_is_the_plain_one_and_the_others_are_random_but_fixed(make, data):
    store, id = make(), data.source.ids[0]
    plain, labels = EvalView(SIDE)(data.source.read_image(id), data.source.read_labels(id))
    assert torch.equal(store.view(id, 0)[0], plain)
    assert torch.equal(store.view(id, 0)[1], labels)
    assert torch.equal(store.view(id, 1)[0], make().view(id, 1)[0])
    assert not torch.equal(store.view(id, 1)[0], plain)
    assert not torch.equal(make(seed=1).view(id, 1)[0], store.view(id, 1)[0])
    three = make(views=(*VIEWS, VIEWS[1]))
    assert not torch.equal(three.view(id, 2)[0], three.view(id, 1)[0])


def test_bfloat16_is_stored_in_half_the_bytes(make, backbone, data):
    store, ids = make(dtype=torch.bfloat16), data.source.ids[:2]
    store.ensure(ids, [0], progress=False)
    pixels = torch.stack([store.view(id, 0)[0] for id in ids])
    found = store.features(ids)
    for level, maps in backbone(pixels).maps.items():
        assert found[level].dtype == torch.bfloat16
        assert torch.equal(found[level], maps.to(torch.bfloat16))
        assert (store.folder / f"{level}.raw").stat().st_size == 60 * maps[0].numel() * 2


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


def test_a_killed_run_leaves_whole_rows_that_the_next_one_keeps(make, backbone, data):
    ids = data.source.ids[:12]
    with pytest.raises(KeyboardInterrupt):
        make(source=Killed(data.source, 10)).ensure(ids, [0], progress=False)
    done = backbone.seen
    assert done == 8  # the first batch
    store = make()
    store.ensure(ids, [0], progress=False)
    assert backbone.seen == 12
    direct = backbone(torch.stack([store.view(id, 0)[0] for id in ids]))
    torch.testing.assert_close(store.features(ids)["layer3"], direct["layer3"], atol=1e-5, rtol=1e-5)


def test_two_stores_of_the_same_things_share_their_rows(make, backbone, data):
    first, second = make(), make()
    assert first.folder == second.folder
    first.ensure(data.source.ids[:3], progress=False)
    second.ensure(data.source.ids[:3], progress=False)  # the rows that the other did while both were open
    assert backbone.seen == 6
    assert torch.equal(
        second.features(data.source.ids[:3])["layer2"], first.features(data.source.ids[:3])["layer2"]
    )


def test_files_are_made_by_one_process_at_a_time(make, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    opened, plain = [], FeatureStore._open

    def watched(store, name, *arguments):
        with (store.folder / "lock").open("w") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # somebody holds it
        opened.append(name)
        return plain(store, name, *arguments)

    monkeypatch.setattr(FeatureStore, "_open", watched)
    make()
    assert opened[-1] == "done.raw"


def test_other_weights_views_seeds_or_types_have_rows_of_their_own(make, config):
    other = replace(config.backbone, seed=1).build()
    stores = [
        make(),
        make(trunk=other),
        make(views=[EvalView(SIDE)]),
        make(seed=1),
        make(dtype=torch.bfloat16),
    ]
    assert len({store.folder for store in stores}) == len(stores)


def test_a_full_disk_is_an_error_and_complete_rows_stay(make, data, monkeypatch):
    store = make()
    store.ensure(data.source.ids[:1], progress=False)
    monkeypatch.setattr("os.pwrite", lambda *_: 1)
    with pytest.raises(OSError, match=r"feature cache .* is full"):
        store.ensure(data.source.ids[:2], progress=False)
    assert store.features(data.source.ids[:1]).maps
    with pytest.raises(ValueError, match="were not computed"):
        store.features(data.source.ids[1:2])


def test_a_file_that_is_gone_makes_its_rows_missing(make, data):
    store = make()
    store.ensure(data.source.ids[:1], progress=False)
    (store.folder / "labels.raw").unlink()
    with pytest.raises(ValueError, match="were not computed"):
        make().features(data.source.ids[:1])


def test_views_of_two_sizes_are_refused(make):
    with pytest.raises(ValueError, match=r"must have one size, got \[33, 41\]"):
        make(views=[EvalView(SIDE), EvalView(41)])


def test_rows_that_were_not_computed_are_told(make, data):
    store = make()
    store.ensure(data.source.ids[:1], [0], progress=False)
    with pytest.raises(ValueError, match=r"features of \['train-00001'\] were not computed: call ensure"):
        store.features(data.source.ids[:2])
    with pytest.raises(ValueError, match="were not computed"):
        store.labels(data.source.ids[:1], view=1)
