"""Features of a method that trains its backbone: the key follows every weight that decides them."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from fewseg.backbones import BackboneConfig, ResNetShape
from fewseg.data.transforms import EvalView
from fewseg.engine.features import Extractor, FeatureStore
from fewseg.methods.fusion import MeanVector
from fewseg.methods.panet import PANetConfig
from fewseg.methods.srpnet import SRPNetConfig

SIDE = 33
SHAPE = ResNetShape(layers=(1, 1, 1, 1), channels=(4, 8, 8, 8), stem_width=4)
LEVELS = ("layer2", "layer3")
BACKBONE = BackboneConfig(name="resnet18", weights=None, levels=LEVELS, shape=SHAPE, trainable=True)


def built(backbone=BACKBONE, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SRPNetConfig(backbone=backbone, levels=LEVELS, channels=6, **changes).build().eval()


def test_it_gives_what_the_method_extracts():
    model, images = built(), torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    found, expected = Extractor(model)(images), model.extract(images)
    assert set(found.maps) == set(expected.maps) == {"embedding"}
    assert torch.equal(found["embedding"], expected["embedding"])


@pytest.mark.parametrize("name", ["pyramid.weight", "pyramid.bias", "backbone.trunk.layer2.0.conv1.weight"])
def test_a_weight_that_changes_changes_the_digest(name):
    model = built()
    before = Extractor(model).digest()
    assert Extractor(built()).digest() == before
    with torch.no_grad():
        dict(model.named_parameters())[name].view(-1)[0] += 1e-3
    assert Extractor(model).digest() != before


def test_a_statistic_that_changes_changes_the_digest():
    model = built()
    before = Extractor(model).digest()
    next(b for n, b in model.named_buffers() if n.endswith("running_mean"))[0] += 1
    assert Extractor(model).digest() != before


def test_another_method_on_the_same_backbone_has_another_digest():
    panets = [PANetConfig(backbone=BACKBONE, level="layer3").build() for _ in range(2)]
    digests = [Extractor(panet).digest() for panet in panets]
    assert digests[0] == digests[1]
    assert digests[0] not in (panets[0].backbone.digest(), Extractor(built()).digest())


def test_another_map_of_the_same_weights_has_another_digest():
    first, second = (PANetConfig(backbone=BACKBONE, level=level).build() for level in LEVELS)
    assert Extractor(first).digest() != Extractor(second).digest()
    assert Extractor(built(grid="layer2")).digest() != Extractor(built(grid="layer3")).digest()


def test_the_fusion_of_the_moment_and_the_path_of_the_weights_do_not_matter(tmp_path):
    model = built()
    before = Extractor(model).digest()
    model.fusion = MeanVector()
    assert Extractor(model).digest() == before
    path = tmp_path / "trunk.safetensors"
    save_file(model.backbone.trunk.state_dict(), path)
    moved = built(backbone=replace(BACKBONE, weights=str(path)))
    assert Extractor(moved).digest() == before


def test_a_store_keeps_embedded_maps_and_a_trained_method_gets_a_new_one(data, tmp_path):
    model, ids = built(), data.source.ids[:3]

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
