"""Methods are found by name; an unknown name gets its neighbours."""

import pytest

from fewseg.methods.pfenet import PFENetConfig
from fewseg.methods.registry import METHODS, method_config, method_name
from fewseg.methods.scl import SCLPFENetConfig


def test_every_config_has_the_name_that_finds_it():
    assert method_config("scl-pfenet") is SCLPFENetConfig
    assert method_name(PFENetConfig()) == "pfenet"
    assert {method_name(kind()) for kind in METHODS.values()} == set(METHODS)


def test_an_unknown_method_gets_the_near_names():
    with pytest.raises(ValueError, match="unknown method 'pfnet': did you mean pfenet"):
        method_config("pfnet")
    with pytest.raises(ValueError, match="did you mean canet or matcher or panet or pfenet"):
        method_config("zzz")
