"""What a method last said of each training pair: CANet's cache, kept with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewseg.ops.resize import resize


class PredictionHistory(nn.Module):
    """Foreground probabilities by training pair, handed back as the previous iteration's answer.

    The maps are kept in half precision in the computer's memory, and go into the state dict (``ids``,
    ``maps``) once there are any: a resumed training goes on with the same history. With several processes
    each keeps that of its own episodes, and the first one's is saved. Under fresh random views the map of
    another view comes back, as in the papers; cached views have a history each. Resets are drawn from torch's
    generator, as dropout is, which the training loop seeds from (seed, process, step).

    Source: CANet (Zhang et al., CVPR 2019), Sec. 3.3: the predicted map is cached for each sample and set to
    zero with probability p_r, so that the decoder also learns to begin.

    Args:
        reset: p_r, 0.7 in the paper, 0.9 in the released SCL code.

    Raises:
        ValueError: ``reset`` is not in [0, 1].
    """

    def __init__(self, reset: float) -> None:
        super().__init__()
        if not 0.0 <= reset <= 1.0:
            raise ValueError(f"history_reset is a probability in [0, 1], got {reset}")
        self.reset = reset
        self._maps: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._maps)

    def recall(self, pair_ids: Tensor | None, like: Tensor) -> Tensor:
        """The previous answers to training pairs.

        Args:
            pair_ids: (n,) int64; None for pairs that nobody named.
            like: (n, C, h, w), whose size, type and device the answer takes.

        Returns:
            (n, 2, h, w) probabilities, background first; both zero where nothing is known or, in
            training, with probability ``reset``.
        """
        size = (int(like.shape[-2]), int(like.shape[-1]))
        history = like.new_zeros(like.shape[0], 2, *size)
        if pair_ids is None:
            return history
        kept = torch.rand(len(pair_ids)) >= self.reset if self.training else torch.ones(len(pair_ids))
        for place, pair in enumerate(pair_ids.tolist()):
            if pair in self._maps and bool(kept[place]):
                foreground = self._maps[pair].to(like.device, like.dtype)
                foreground = resize(foreground[None, None], size)[0, 0]
                history[place] = torch.stack([1 - foreground, foreground])
        return history

    def remember(self, pair_ids: Tensor | None, logits: Tensor) -> None:
        """Keeps the answers to training pairs; in eval mode nothing is kept.

        Args:
            pair_ids: (n,) int64, or None.
            logits: (n, 2, h, w).
        """
        if pair_ids is None or not self.training:
            return
        foreground = logits.detach().float().softmax(dim=1)[:, 1:]
        if self._maps:
            kept = next(iter(self._maps.values()))
            foreground = resize(foreground, (int(kept.shape[0]), int(kept.shape[1])))
        maps = foreground[:, 0].half().cpu()
        each = (one.clone() for one in maps)  # a view would keep the whole batch in memory
        self._maps.update(zip(pair_ids.tolist(), each, strict=True))

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._maps:
            destination[f"{prefix}ids"] = torch.tensor(list(self._maps))
            destination[f"{prefix}maps"] = torch.stack(list(self._maps.values()))

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Takes the history of a state dict, or none; called by ``load_state_dict``."""
        names = (f"{prefix}ids", f"{prefix}maps")
        ids, maps = (state_dict.get(name) for name in names)
        self._maps = {}
        if ids is not None and maps is not None:
            # A clone each: a map that is replaced later must not keep all others in memory.
            pairs = zip(ids.tolist(), maps.half().cpu(), strict=True)
            self._maps = {pair: one.clone() for pair, one in pairs}
        rest = {key: value for key, value in state_dict.items() if key not in names}
        super()._load_from_state_dict(
            rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
