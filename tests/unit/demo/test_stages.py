"""The demo's stages: fixed threads, strict determinism, times, and options that make sense."""

import pytest
import torch

from fewseg.demo.options import DemoOptions
from fewseg.demo.run import repeatable


def test_threads_and_determinism_are_set_and_put_back_even_after_an_error():
    before = torch.get_num_threads()

    def fail() -> None:
        with repeatable(before + 1):
            assert torch.get_num_threads() == before + 1
            assert torch.are_deterministic_algorithms_enabled()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


@pytest.mark.parametrize("wrong", [{"size": 128}, {"size": 57}, {"shots": 1}, {"threads": 0}])
def test_invalid_options_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        DemoOptions(**wrong)
