"""Methods by their names, those of other packages among them."""

import logging
import subprocess
import sys
from dataclasses import make_dataclass

import pytest
import torch

import fewseg
from fewseg.backbones import BackboneConfig, ResNetShape
from fewseg.methods import (
    Matcher,
    MethodConfig,
    PFENet,
    PFENetConfig,
    SCLPFENetConfig,
    create_method,
    list_methods,
    method_config,
    method_name,
    registry,
)
from fewseg.methods.registry import METHODS

SMALL = BackboneConfig(name="resnet18", weights=None, shape=ResNetShape())


def test_every_name_is_that_of_its_config():
    assert method_config("scl-pfenet") is SCLPFENetConfig
    assert {method_name(kind()) for kind in METHODS.values()} == set(METHODS) == set(list_methods())


def test_an_unknown_method_is_refused_with_near_names():
    with pytest.raises(ValueError, match="unknown method 'pfnet': did you mean pfenet"):
        create_method("pfnet")
    with pytest.raises(ValueError, match="unknown method 'zzz': did you mean amp or asgnet or bam or"):
        create_method("zzz")


def test_a_method_is_created_with_some_fields_changed():
    method = create_method("pfenet", channels=8, backbone=SMALL)
    assert isinstance(method, PFENet)
    assert method.config == PFENetConfig(channels=8, backbone=SMALL)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"chanels": 8},
            r"has no field 'chanels' \(did you mean 'channels'\?\); it has backbone",
        ),
        ({"zzz": 8}, "has no field 'zzz'; it has backbone, small_objects, channels, mid_levels"),
        ({"backbone": "resnet50"}, "backbone of method 'pfenet' must be BackboneConfig, got 'resnet50'"),
        (
            {"fusion": "mean"},
            "fusion of method 'pfenet' must be MeanVector or ScoreAverage or Cross",
        ),
    ],
)
def test_a_field_that_does_not_fit_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        create_method("pfenet", **fields)


OUTSIDE = """
from dataclasses import dataclass, field
from fewseg.methods import FewShotSegmenter, MeanVector, MethodConfig, register_method
from fewseg.recipes.datasets import voc5i_mini
from fewseg.recipes.recipe import Recipe, register
from fewseg.recipes.variants import Variant

@dataclass(frozen=True, kw_only=True)
class DarkConfig(MethodConfig):
    fusion: MeanVector = field(default_factory=MeanVector)
    level: float = 0.5

@register_method("dark", DarkConfig)
class Dark(FewShotSegmenter):
    fusions = (MeanVector(),)

    def encode_support(self, support):
        return support.masks

    def segment(self, query, state):
        raise NotImplementedError

    def training_losses(self, episodes):
        raise NotImplementedError

@register(Variant(name="dark"))
def dark_voc() -> Recipe:
    return Recipe(method=DarkConfig(), data=voc5i_mini, train=None, size=97)
"""

USE = """
import fewseg
from fewseg.backbones import BackboneConfig, ResNetShape
from fewseg.engine.config_json import config_from_json
from fewseg.engine.results import as_json
assert "dark" in fewseg.list_methods() and "pfenet" in fewseg.list_methods()
backbone = BackboneConfig(name="resnet18", weights=None, shape=ResNetShape())
method = fewseg.create_method("dark", level=0.25, backbone=backbone)
assert type(method).__name__ == "Dark" and method.config.level == 0.25
assert config_from_json(as_json(method.config)) == method.config
from fewseg.recipes.names import check_recipe_name
from fewseg.recipes.registry import recipe
check_recipe_name("dark_voc")
assert type(recipe("dark_voc").method).__name__ == "DarkConfig"
"""


def installed(folder, name, source, target):
    """What an installer leaves of a small package: a module and its metadata."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fewseg.methods]\n{name} = {target}\n")


def test_an_installed_package_brings_its_own_method_and_recipe(tmp_path):
    installed(tmp_path, "darkness", OUTSIDE, "darkness")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{USE}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_config_without_a_fusion_is_refused():
    with pytest.raises(ValueError, match="NoFusionConfig has no field fusion: every method's config"):
        registry.register_method(
            "no-fusion",
            make_dataclass("NoFusionConfig", [], bases=(MethodConfig,), frozen=True, kw_only=True),
        )(Matcher)


def test_a_package_that_cannot_be_imported_takes_no_other_along(tmp_path, monkeypatch, caplog):
    installed(tmp_path, "broken", "import nothing_of_this_name", "broken")
    monkeypatch.syspath_prepend(tmp_path)
    registry.load_other_packages.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert "pfenet" in list_methods()
    assert "the methods and recipes of broken (broken) could not be loaded" in caplog.text


def test_the_package_gives_its_public_names_and_imports_torch_only_for_them():
    code = "import sys, fewseg; assert 'torch' not in sys.modules; print(*dir(fewseg))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert {"Segmenter", "create_method", "list_methods", "load_method"} <= set(out.split())
    assert fewseg.create_method is create_method
    with pytest.raises(AttributeError, match="has no attribute 'Segmentor'"):
        _ = fewseg.Segmentor
    assert isinstance(fewseg.create_method("matcher", backbone=SMALL), torch.nn.Module)


def test_a_name_and_a_class_name_that_are_taken_are_refused():
    """Checkpoints find config classes by their names."""
    other = make_dataclass("OtherConfig", [], bases=(MethodConfig,), frozen=True, kw_only=True)
    with pytest.raises(ValueError, match=r"PFENetConfig already: choose a different name"):
        registry.register_method("pfenet", other)(Matcher)
    own = make_dataclass("PFENetConfig", [], bases=(MethodConfig,), frozen=True, kw_only=True)
    with pytest.raises(ValueError, match=r"PFENetConfig (has this class name|exists) already"):
        registry.register_method("unheard-of", own)(Matcher)
    assert "unheard-of" not in registry.METHODS
    with pytest.raises(ValueError, match="OtherConfig is not registered"):
        registry.method_name(other())
