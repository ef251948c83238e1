"""Multi-scale inference, around any method: the same pictures at several input sizes, answers added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewseg.methods.base import FewShotSegmenter
from fewseg.ops.geometry import resize_images, resize_labels
from fewseg.ops.resize import resize
from fewseg.types import EncodedShots, State


@dataclass(frozen=True, kw_only=True)
class MultiScale:
    """Softmax of the logits at each input size, brought to the largest size and added.

    It works on images, not on cached features: each size is a backbone pass of its own. States are values, as
    with a single size, and serve any number of queries.

    SD-AANet's Table IV resizes the logits of a single pass instead: ``output_sizes`` of an evaluation.

    Attributes:
        sizes: sides of the square inputs, pixels; best of the form 8k + 1.

    Raises:
        ValueError: no size, one twice, or one below 1.
    """

    sizes: tuple[int, ...] = (321, 473)

    def __post_init__(self) -> None:
        if not self.sizes or len(set(self.sizes)) != len(self.sizes) or min(self.sizes) < 1:
            raise ValueError(f"sizes {self.sizes}: give one or more sides of 1 pixel at least, each once")

    def encode_support(
        self, method: FewShotSegmenter, images: Tensor, masks: Tensor, way_of: tuple[int, ...] = ()
    ) -> tuple[State, ...]:
        """Encodes B support sets at every size.

        Args:
            method: any method, in eval mode.
            images: (B, K, 3, H, H) RGB in [0, 1], square; best at the largest size or larger.
            masks: (B, K, H, H) uint8 in {0, 1, 255}; with several ways in {0, 1 .. N, 255}.
            way_of: see ``EncodedShots``.

        Returns:
            One state a size.

        Raises:
            ValueError: the images are not square.
        """
        _check_square(images)
        states = []
        for size in self.sizes:
            features = method.extract(resize_images(images.flatten(0, 1), (size, size)))
            scaled = resize_labels(masks, (size, size))
            states.append(method.encode_support(EncodedShots(features=features, masks=scaled, way_of=way_of)))
        return tuple(states)

    def segment(self, method: FewShotSegmenter, images: Tensor, states: tuple[State, ...]) -> Tensor:
        """Segments queries at every size and adds the probabilities.

        Args:
            method: the method that made the states.
            images: (n, 3, H, H) RGB in [0, 1], square.
            states: of ``encode_support``.

        Returns:
            (n, 1 + N, S, S) summed probabilities at the largest size S, background first: over the classes
            they sum to the number of sizes.

        Raises:
            ValueError: the images are not square, or the states are of another number of sizes.
        """
        _check_square(images)
        if len(states) != len(self.sizes):
            raise ValueError(
                f"got {len(states)} states for the {len(self.sizes)} sizes {self.sizes}: give those of "
                "encode_support of the same MultiScale"
            )
        return added_probabilities(
            [
                method.segment(method.extract(resize_images(images, (size, size))), state)
                for size, state in zip(self.sizes, states, strict=True)
            ]
        )


def added_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """Softmax of each size's logits (n, C, s, s), brought to the largest size and added.

    Source: SD-AANet (Zhao et al. 2022), Sec. IV-C2.
    """
    largest = max(int(one.shape[-1]) for one in logits)
    answers = [resize(one.float().softmax(dim=1), (largest, largest)) for one in logits]
    return torch.stack(answers).sum(dim=0)


def _check_square(images: Tensor) -> None:
    if images.shape[-1] != images.shape[-2]:
        raise ValueError(
            f"multi-scale inference takes square views, got {tuple(images.shape[-2:])}: letterbox the images"
        )
