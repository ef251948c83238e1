"""Multi-scale answers, of any method: the probabilities of several sizes, added."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fewseg.ops.resize import resize


def added_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """Softmax of each size's logits (n, C, s, s), brought to the largest size and added.

    Source: SD-AANet (Zhao et al. 2022), Sec. IV-C2.
    """
    largest = max(int(scores.shape[-1]) for scores in logits)
    answers = [resize(scores.float().softmax(dim=1), (largest, largest)) for scores in logits]
    return torch.stack(answers).sum(dim=0)
