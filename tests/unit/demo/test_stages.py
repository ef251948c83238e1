"""The demo's stages: fixed threads, strict determinism, times, and options that make sense."""

import time
from dataclasses import replace

import pytest
import torch

from fewseg.backbones import ResNetShape
from fewseg.demo.options import DemoOptions, PretrainConfig
from fewseg.demo.plan import explained, planned, seconds_per_step
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


@pytest.mark.parametrize(
    "wrong", [{"size": 128}, {"size": 57}, {"shots": 1}, {"threads": 0}, {"minutes": -1}]
)
def test_invalid_options_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        DemoOptions(**wrong)


@pytest.mark.parametrize(
    ("step", "size", "pretrained", "trained"),
    [(0.05, 129, 1200, 1250), (0.11, 97, 1200, 1250), (0.14, 97, 900, 1000), (0.18, 97, 600, 800)],
)
def test_a_slower_machine_has_smaller_pictures_and_then_fewer_steps(step, size, pretrained, trained):
    given = DemoOptions()
    plan, seconds = planned(given, step)
    assert (plan.size, plan.pretrain.steps, plan.steps) == (size, pretrained, trained)
    assert 100 < seconds <= 300
    images = 2000 if size == 129 else 1200
    same = DemoOptions(
        size=size, train_images=images, pretrain=PretrainConfig(steps=pretrained), steps=trained
    )
    assert plan == same, "nothing else is changed"
    line = explained(given, plan, step, seconds)
    assert line.startswith(f"a training step takes {step:.2f} s here")
    assert f"about {seconds / 60:.0f} minutes" in line
    assert ("--minutes 0 for pictures of 129 and 1200 + 1250 steps" in line) == (plan != given)


def test_a_machine_that_is_too_slow_for_any_plan_is_shown_the_true_time():
    given = DemoOptions()
    plan, seconds = planned(given, 2.0)
    assert plan.steps == 800
    assert seconds > 1000
    assert f"are used, about {seconds / 60:.0f} minutes" in explained(given, plan, 2.0, seconds)


def test_the_probe_stops_at_its_limit_and_at_the_last_step():
    shape = ResNetShape(layers=(1, 1, 1, 1), channels=(8, 8, 8, 8), stem_width=4)
    tiny = DemoOptions(size=65, shape=shape, pretrain=PretrainConfig(steps=3, batch=2))
    state = torch.random.get_rng_state()
    assert 0 < seconds_per_step(tiny) < 1
    started = time.perf_counter()
    assert seconds_per_step(replace(tiny, pretrain=PretrainConfig(batch=2)), limit=0.05) > 0
    assert time.perf_counter() - started < 5
    assert torch.equal(torch.random.get_rng_state(), state)
