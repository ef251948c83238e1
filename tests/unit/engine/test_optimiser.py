"""Learning rates by hand; optimisers get what their config says."""

import pytest
import torch

from fewseg.engine.train_config import SGD, AdamW, StepSGD


def test_sgd_decays_by_the_power_from_the_first_step():
    sgd = SGD(lr=0.1, power=0.9)
    assert sgd.lr_at(0, 10) == 0.1
    assert sgd.lr_at(5, 10) == pytest.approx(0.1 * 0.5**0.9)
    assert sgd.lr_at(9, 10) == pytest.approx(0.1 * 0.1**0.9)


def test_adamw_warms_up_in_equal_steps_while_it_decays():
    adamw = AdamW(lr=1.0, power=1.0, warmup=4)
    rates = [adamw.lr_at(step, 10) for step in range(6)]
    assert rates == pytest.approx([0.25, 0.5 * 0.9, 0.75 * 0.8, 0.7, 0.6, 0.5])
    assert AdamW(lr=1.0, warmup=0).lr_at(0, 10) == 1.0


def test_step_sgd_falls_by_its_factor_at_every_boundary_whatever_the_length_of_the_run():
    steps = StepSGD(lr=0.5, every=10, factor=0.2)
    rates = {0: 0.5, 9: 0.5, 10: 0.1, 19: 0.1, 20: 0.02, 30: 0.004}
    for length in (15, 1000):
        assert [steps.lr_at(step, length) for step in rates] == pytest.approx(list(rates.values()))
    assert [StepSGD().lr_at(step, 30_000) for step in (0, 9_999, 10_000, 29_999)] == pytest.approx(
        [1e-3, 1e-3, 1e-4, 1e-5]
    )


def test_the_papers_numbers_are_the_defaults():
    assert SGD() == SGD(lr=2.5e-3, momentum=0.9, weight_decay=1e-4, power=0.9)
    assert StepSGD() == StepSGD(lr=1e-3, momentum=0.9, weight_decay=5e-4, every=10_000, factor=0.1)


@pytest.mark.parametrize(
    ("config", "kind", "expected"),
    [
        (SGD(lr=0.3, momentum=0.8, weight_decay=0.02), torch.optim.SGD, {"momentum": 0.8}),
        (StepSGD(lr=0.3, momentum=0.7, weight_decay=0.02), torch.optim.SGD, {"momentum": 0.7}),
        (AdamW(lr=0.3, weight_decay=0.02), torch.optim.AdamW, {}),
    ],
)
def test_the_optimiser_is_built_with_the_fields(config, kind, expected):
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimiser = config.build([parameter])
    assert type(optimiser) is kind
    group = optimiser.param_groups[0]
    assert group["params"] == [parameter]
    for name, value in {"lr": 0.3, "weight_decay": 0.02, **expected}.items():
        assert group[name] == value
