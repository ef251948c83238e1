"""The probabilities of several sizes are added."""

import torch

from fewseg.methods.multi_scale import added_probabilities


def test_it_is_the_probabilities_that_are_brought_to_the_largest_size_not_the_logits():
    small, large = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 3, 3)
    small[0, 1, :, 0] = 8.0
    found = added_probabilities([small, large])[0, 1, 0]
    sure = float(torch.tensor(8.0).sigmoid())
    torch.testing.assert_close(found, torch.tensor([sure, (sure + 0.5) / 2, 0.5]) + 0.5)
