"""The backbone's training from scratch: what it reads, what it changes, that it learns and repeats."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewseg.backbones import BackboneConfig, ResNetShape
from fewseg.data.synthetic import SyntheticSource
from fewseg.demo.options import PretrainConfig
from fewseg.demo.pretrain import Cells, augment, pretrain, read_cells
from fewseg.types import IGNORE

SMALL = BackboneConfig(
    name="resnet18",
    weights=None,
    levels=("layer2", "layer3"),
    shape=ResNetShape(layers=(1, 1, 1, 1), channels=(8, 16, 16, 16), stem_width=8),
)


def stripes(n: int = 24) -> Cells:
    """Pictures of upright (class 1) and lying (class 2) stripes beside an empty third (background)."""
    generator = torch.Generator().manual_seed(0)
    wave = 127 * torch.sin(torch.arange(65) * 2 * torch.pi / 8)
    lying = torch.arange(n) % 2 == 0
    fields = torch.where(lying[:, None, None], wave[:, None].expand(65, 65), wave.expand(65, 65))
    fields = fields * (0.5 + 0.5 * torch.rand(n, 1, 1, generator=generator))
    fields[:, :, :24] = 0
    classes = torch.ones(n, 9, 9, dtype=torch.long) + lying[:, None, None]
    classes[:, :, :3] = 0
    images = (128 + fields).clamp(0, 255).to(torch.uint8)
    return Cells(images=images[:, None].expand(n, 3, 65, 65), classes=classes, names=3)


def train(path: Path, steps: int, seed: int = 0) -> tuple[float, dict[str, torch.Tensor]]:
    config = PretrainConfig(steps=steps, lr=5e-3)
    right = pretrain(SMALL, config, stripes(), path, seed=seed, progress=False)
    trained = replace(SMALL, weights=str(path)).build()
    assert trained.report is not None
    assert trained.report.complete
    return right, trained.trunk.state_dict()


def test_a_cell_has_the_class_of_the_pixel_at_its_centre():
    source = SyntheticSource(images=3, size=65, classes=(4, 9, 17))
    cells = read_cells(source, source.ids[1:], base=(4, 17))
    assert cells.images.shape == (2, 3, 65, 65)
    assert cells.classes.shape == (2, 9, 9)
    assert cells.names == 3
    expected = {0: 0, 4: 1, 9: 0, 17: 2, IGNORE: IGNORE}
    for found, id in zip(cells.classes, source.ids[1:], strict=True):
        for (row, column), label in np.ndenumerate(source.read_labels(id)[::8, ::8].numpy()):
            assert int(found[row, column]) == expected[int(label)]


def test_augmentation_mirrors_picture_and_classes_together_and_keeps_its_arguments():
    images = torch.full((64, 3, 65, 65), 40, dtype=torch.uint8)
    images[:, :, :, 45:] = 220
    classes = torch.zeros(64, 9, 9, dtype=torch.long)
    classes[:, :, 6:] = 1
    before = images.clone(), classes.clone()
    changed, marked = augment(images, classes, torch.Generator().manual_seed(3))
    assert torch.equal(images, before[0])
    assert torch.equal(classes, before[1])
    centres = changed[:, :, ::8, ::8].mean(1)
    for picture, cells in zip(centres, marked, strict=True):
        assert picture[cells == 1].min() > picture[cells == 0].max()
    mirrored = marked[:, 0, 0] == 1
    assert 10 < int(mirrored.sum()) < 54


def test_it_learns_what_cells_show_and_writes_a_file_that_a_backbone_loads(tmp_path):
    untrained, first = train(tmp_path / "a.safetensors", steps=1)
    right, last = train(tmp_path / "b.safetensors", steps=40)
    assert right > 0.9
    assert right > untrained
    assert not torch.equal(first["conv1.0.weight"], last["conv1.0.weight"])
    assert int(last["bn1.num_batches_tracked"]) == 40


def test_the_seed_alone_decides_the_weights_and_global_random_state_is_left_alone(tmp_path):
    before = torch.get_rng_state()
    _, first = train(tmp_path / "a.safetensors", steps=4)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(5)
    _, again = train(tmp_path / "b.safetensors", steps=4)
    _, other = train(tmp_path / "c.safetensors", steps=4, seed=1)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)
    torch.set_rng_state(before)


@pytest.mark.parametrize("background", [0.0, 1.0])
def test_the_weight_of_the_background_counts(tmp_path, background):
    cells = stripes()
    config = PretrainConfig(steps=25, lr=5e-3, background=background)
    emptied = replace(cells, classes=torch.where(cells.classes == 2, 0, cells.classes))
    right = pretrain(SMALL, config, emptied, tmp_path / "a.safetensors", seed=0, progress=False)
    assert (right == 1.0) == (background == 0.0), "without background only one class is left to name"
