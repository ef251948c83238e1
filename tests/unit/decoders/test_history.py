"""What was last said of a training pair comes back, but for resets, and survives a checkpoint."""

import copy

import pytest
import torch

from fewseg.methods.canet import PredictionHistory

IDS = torch.tensor([5, 2**62, 7])
LIKE = torch.zeros(3, 4, 6, 5)


def answers(seed=0):
    return 3 * torch.randn(3, 2, 6, 5, generator=torch.Generator().manual_seed(seed))


def filled(reset=0.0):
    history = PredictionHistory(reset)
    history.remember(IDS, answers())
    return history


def test_an_unknown_or_unnamed_pair_has_a_history_of_zeros():
    history = filled()
    assert history.recall(torch.tensor([1, 2, 3]), LIKE).abs().max() == 0
    assert history.recall(None, LIKE).shape == (3, 2, 6, 5)
    assert history.recall(None, LIKE).abs().max() == 0


def test_the_history_is_the_softmax_of_the_pairs_last_answer():
    history = filled()
    torch.testing.assert_close(history.recall(IDS, LIKE), answers().softmax(1), atol=1e-3, rtol=0)
    history.remember(IDS[1:], answers(1)[1:])
    expected = torch.cat([answers()[:1], answers(1)[1:]]).softmax(1)
    torch.testing.assert_close(history.recall(IDS, LIKE), expected, atol=1e-3, rtol=0)
    back = IDS.flip(0)
    torch.testing.assert_close(history.recall(back, LIKE), expected.flip(0), atol=1e-3, rtol=0)
    assert len(history) == 3


def test_the_history_comes_at_the_size_that_is_asked_for():
    history = filled()
    full = answers().softmax(1)
    expected = torch.nn.functional.interpolate(full, size=(11, 9), mode="bilinear", align_corners=True)
    found = history.recall(IDS, torch.zeros(3, 4, 11, 9))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("reset", [0.0, 0.7, 0.9, 1.0])
def test_a_history_is_reset_with_the_given_probability(reset):
    history = filled(reset)
    torch.manual_seed(0)
    zeros = sum(int((history.recall(IDS, LIKE).abs().amax(dim=(1, 2, 3)) == 0).sum()) for _ in range(400))
    assert zeros / 1200 == pytest.approx(reset, abs=0.04)


def test_resets_follow_torchs_seed_and_do_not_happen_in_eval_mode():
    history = filled(0.5)
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append(torch.stack([history.recall(IDS, LIKE) for _ in range(5)]))
    assert torch.equal(*draws)
    assert len(draws[0].amax(dim=(2, 3, 4)).unique()) > 2
    history.eval()
    assert bool((history.recall(IDS, LIKE).amax(dim=(1, 2, 3)) > 0).all())


def test_nothing_is_kept_in_eval_mode_or_without_names():
    history = PredictionHistory(0.7).eval()
    history.remember(IDS, answers())
    history.train().remember(None, answers())
    assert len(history) == 0
    assert history.state_dict() == {}


def test_a_state_dict_carries_the_history_exactly():
    history = filled()
    other = torch.nn.ModuleDict({"history": PredictionHistory(0.0)})
    other.load_state_dict({f"history.{key}": value for key, value in history.state_dict().items()})
    assert torch.equal(other["history"].recall(IDS, LIKE), history.recall(IDS, LIKE))
    other.load_state_dict({})
    assert len(other["history"]) == 0


def test_a_copy_has_a_history_of_its_own():
    history = filled()
    copied = copy.deepcopy(history)
    copied.remember(IDS, answers(1))
    torch.testing.assert_close(history.recall(IDS, LIKE), answers().softmax(1), atol=1e-3, rtol=0)


def test_a_reset_that_is_no_probability_is_refused():
    with pytest.raises(ValueError, match=r"probability in \[0, 1\], got 1.5"):
        PredictionHistory(1.5)
