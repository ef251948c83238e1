"""Features of a method that trains its backbone: the key follows every weight that decides them."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from fewseg.data.transforms import EvalView
from fewseg.engine.features import Extractor, FeatureStore
from fewseg.methods.fusion import MeanVector
from fewseg.methods.panet import PANetConfig
from fewseg.methods.srpnet import SRPNetConfig
from small_segmenters import built, small_backbone

SIDE = 33
LEVELS = ("layer2", "layer3")
BACKBONE = small_backbone(*LEVELS, trainable=True)


def make_model(backbone=BACKBONE, **changes):
    return built(SRPNetConfig(backbone=backbone, levels=LEVELS, channels=6, **changes))


@pytest.mark.parametrize("name", ["pyramid.weight", "pyramid.bias", "backbone.trunk.bn1.running_mean"])
def test_a_weight_or_statistic_that_changes_changes_the_digest(name):
    model = make_model()
    before = Extractor(model).digest()
    assert Extractor(make_model()).digest() == before
    with torch.no_grad():
        model.state_dict()[name].view(-1)[0] += 1e-3
    assert Extractor(model).digest() != before


def test_another_method_on_the_same_backbone_has_another_digest():
    panets = [PANetConfig(backbone=BACKBONE, level="layer3").build() for _ in range(2)]
    digests = [Extractor(panet).digest() for panet in panets]
    assert digests[0] == digests[1]
    assert digests[0] not in (panets[0].backbone.digest(), Extractor(make_model()).digest())


def test_another_map_of_the_same_weights_has_another_digest():
    first, second = (PANetConfig(backbone=BACKBONE, level=level).build() for level in LEVELS)
    assert Extractor(first).digest() != Extractor(second).digest()
    assert Extractor(make_model(grid="layer2")).digest() != Extractor(make_model(grid="layer3")).digest()


def test_the_fusion_of_the_moment_and_the_path_of_the_weights_do_not_matter(tmp_path):
    model = make_model()
    before = Extractor(model).digest()
    model.fusion = MeanVector()
    assert Extractor(model).digest() == before
    path = tmp_path / "trunk.safetensors"
    save_file(model.backbone.trunk.state_dict(), path)
    moved = make_model(backbone=replace(BACKBONE, weights=str(path)))
    assert Extractor(moved).digest() == before


def test_a_store_keeps_embedded_maps_and_a_trained_method_gets_a_new_one(data, tmp_path):
    model, ids = make_model(), data.source.ids[:3]

    def store():
        views = [EvalView(SIDE)]
        return FeatureStore(Extractor(model), data.source, views, folder=tmp_path, dtype=torch.float32)

    first = store()
    first.ensure(ids, progress=False)
    images = torch.stack([first.view(id, 0)[0] for id in ids])
    found = model.embed(first.features(ids))
    torch.testing.assert_close(
        found["embedding"], model.extract(images)["embedding"].detach(), atol=1e-5, rtol=1e-4
    )
    assert store().folder == first.folder
    with torch.no_grad():
        model.pyramid.weight *= 2
    assert store().folder != first.folder
