"""The table of methods: every column against its source."""

import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from fewseg.methods import list_methods
from fewseg.methods.insid3 import INSID3Config
from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.sgone import SGOneConfig
from fewseg.reports.frame import results_of
from fewseg.reports.options import ZooOptions
from fewseg.reports.zoo import adds, cost, measured, published, run, small_recipes
from fewseg.types import EncodedShots
from result_files import make_counts, make_result
from small_segmenters import small_backbone


def test_every_method_has_a_line_that_says_what_it_adds_and_a_recipe_on_the_small_set():
    lines = {name: adds(name) for name in list_methods()}
    assert all(20 < len(line) < 120 for line in lines.values())
    for line in lines.values():
        first = line.split()[0]
        assert first.islower() or first in ("PFENet", "PMMs", "SCL"), line
        assert line[-1].isalnum() or line[-1] == ")", line
    assert lines["sgone"] == "the cosine to a pooled support vector guides the segmentation of the query"
    assert set(small_recipes()) == set(list_methods())
    assert small_recipes()["scl-canet"].name == "voc5i_mini_scl_canet"


def test_published_values_are_those_of_the_row_with_the_methods_label():
    assert published("pfenet") == {1: 60.8, 5: 61.9}
    assert published("canet") == {1: 55.4, 5: 57.1}
    assert published("srpnet") == {1: 61.5, 5: 62.6}
    assert published("sdaanet") == {1: 61.9, 5: 64.4}  # Table III prints one shot alone
    assert published("asgnet", "coco-20i")[1] > 30
    assert published("matcher") == {}


def test_measured_values_are_the_mean_of_four_folds_by_the_methods_own_fusion():
    made = {
        f"{fold}-{shots}-{fusion}": make_result(
            make_counts(fold, better=better), fold, shots=shots, fusion=fusion
        )
        for fold in range(4)
        for shots, fusion, better in ((1, "mean", 0.0), (5, "mean", 0.1), (5, "average", 0.2))
    }
    frame = results_of(made).frame
    found = measured("pfenet", results_of(made))
    for shots in (1, 5):
        own = frame[(frame.shots == shots) & (frame.fusion == "mean")].miou
        assert found[shots] == pytest.approx(100 * own.mean())
    del made["3-1-mean"]
    assert set(measured("pfenet", results_of(made))) == {5}
    assert measured("canet", results_of(made)) == {}


def test_a_twice_as_large_input_costs_about_four_times_as_much():
    small = SGOneConfig(backbone=small_backbone("layer2"), channels=8)
    one, two = cost(small, 33), cost(small, 65)
    assert 3 < two.query / one.query < 4.2
    assert 3 < two.support / one.support < 4.2
    assert one.query > one.support
    expected = sum(p.numel() for p in small.build().parameters())
    assert one.trained + one.frozen == expected
    assert one.frozen == sum(p.numel() for p in small.build().backbone.parameters())


def test_operations_are_those_of_the_network_and_the_head_on_real_images():
    config = PFENetConfig(backbone=small_backbone("layer2", "layer3", "layer4"), channels=8, scales=(1.0,))
    method, images = config.build().eval(), torch.rand(1, 3, 65, 65)
    masks = torch.zeros(1, 1, 65, 65, dtype=torch.uint8)
    masks[..., 16:32, 16:48] = 1
    found = cost(config, 65)
    with torch.no_grad(), FlopCounterMode(display=False) as support:
        state = method.encode_support(EncodedShots(features=method.extract(images), masks=masks))
    with torch.no_grad(), FlopCounterMode(display=False) as query:
        method.segment(method.extract(images), state)
    assert (found.support, found.query) == (support.get_total_flops(), query.get_total_flops())


def test_what_is_computed_once_a_model_is_no_cost_of_a_support_set():
    backbone = small_backbone("layer3")
    found = cost(INSID3Config(backbone=backbone, level="layer3"), 65)
    with torch.no_grad(), FlopCounterMode(display=False) as image:
        backbone.build().eval()(torch.rand(1, 3, 65, 65))
    assert found.support < 1.5 * image.get_total_flops()


def test_counting_leaves_torchs_random_numbers_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    cost(SGOneConfig(backbone=small_backbone("layer2"), channels=8), 33)
    assert torch.equal(torch.rand(1), expected)


def test_the_command_prints_the_methods_that_are_named(tmp_path, capsys):
    run(ZooOptions(methods=("pfenet", "hsnet"), results=tmp_path / "none", costs=False), Console(width=200))
    out = capsys.readouterr().out
    assert "pfenet" in out
    assert "hsnet" in out
    assert "canet" not in out
    assert "60.8, 61.9" in out
    with pytest.raises(ValueError, match="unknown method 'pfnet': did you mean pfenet"):
        run(ZooOptions(methods=("pfnet",)), Console())


def test_what_a_method_adds_stands_under_the_table_where_the_terminal_is_narrow(tmp_path, capsys):
    for width in (80, 200):
        run(
            ZooOptions(methods=("pfenet",), results=tmp_path / "none", costs=False),
            Console(width=width, soft_wrap=True),
        )
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith("pfenet: a training-free prior map") == (width == 80)
