"""Views of an image and its labels: joint transforms on tv_tensors, random only through ``Draws``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from fewseg.data.draws import Draws
from fewseg.ops.geometry import (
    IMAGENET_MEAN,
    Letterbox,
    letterbox,
    pad_images,
    pad_labels,
    place,
    place_labels,
    resize_images,
    resize_labels,
    scaled,
    stretched,
)
from fewseg.types import IGNORE, check_choices

VIEWS_VERSION = 1
"""Part of the key of cached views: a change of what a view does is a change of this number."""

_LAST_ID = 65_535  # stored maps have 16 bits
_BLUR_KERNEL = 5  # pixels; PFENet's transform
_BLUR_SIGMA = 1.1  # OpenCV's default for a kernel of 5
_CROP_TRIES = 10
_KEPT = 0.85  # PFENet crops again until this part of the target is inside


def binary_mask(labels: Tensor, class_id: int) -> Tensor:
    """Returns uint8 of the shape of ``labels``: 1 where the class is, 255 where 255 is, 0 elsewhere."""
    mask = (labels == class_id).to(torch.uint8)
    return mask.masked_fill_(labels == IGNORE, IGNORE)


def among(labels: Tensor, class_ids: Sequence[int]) -> Tensor:
    """Returns bool of the shape of ``labels``, ids in 0 .. 65 535: where one of the classes is.

    A table, since ``torch.isin`` takes several times as long.
    """
    table = torch.zeros(_LAST_ID + 1, dtype=torch.bool)
    table[list(class_ids)] = True
    return table.take(labels.long())


def way_labels(labels: Tensor, class_ids: Sequence[int]) -> Tensor:
    """Returns the label map of an episode of several ways; :func:`binary_mask` is that of one."""
    wrong = not class_ids or len(set(class_ids)) != len(class_ids)
    if wrong or min(class_ids) < 1 or max(class_ids) > _LAST_ID or IGNORE in class_ids:
        raise ValueError(
            f"the ways of a label map have the classes {list(class_ids)}: give one or more different ids in "
            f"1 .. {IGNORE - 1} (and {IGNORE + 1} .. {_LAST_ID} in wide maps); 0 is background, {IGNORE} is "
            "ignore"
        )
    result = binary_mask(labels, class_ids[0])
    for way, class_id in enumerate(class_ids[1:], start=2):
        result.masked_fill_(labels == class_id, way)
    return result


def unit_image(image: Tensor) -> Tensor:
    """Returns a uint8 image as float32 in [0, 1]; a float image is taken to be that already."""
    return image.float() / 255 if image.dtype == torch.uint8 else image.float()


@dataclass(frozen=True)
class EvalView:
    """The whole image in a square of ``size`` pixels: aspect kept, top-left, padded with the mean and 255."""

    size: int

    def __call__(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the view of an image."""
        box = self.box((int(image.shape[-2]), int(image.shape[-1])))
        return place(unit_image(image), box), place_labels(labels, box)

    def box(self, hw: tuple[int, int]) -> Letterbox:
        """Returns where an image of (H, W) pixels lies in the view."""
        return letterbox(hw, self.size)


@dataclass(frozen=True)
class StretchedView(EvalView):
    """The whole image stretched to the square, without padding (HSNet)."""

    def box(self, hw: tuple[int, int]) -> Letterbox:
        """Returns the whole view, for an image of (H, W) pixels."""
        return stretched(hw, self.size)


@dataclass(frozen=True)
class OriginalView(EvalView):
    """The whole image at its own size: nothing is resized or padded."""

    size: int = 0

    def __call__(self, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the image (3, H, W) in [0, 1] and its labels (H, W) unchanged."""
        return unit_image(image), labels

    def box(self, hw: tuple[int, int]) -> Letterbox:
        """Returns the view of an image of (H, W) pixels, which is all of it, without padding."""
        return Letterbox(original=hw, size=max(hw), content=hw)


def eval_view(size: int, aspect: Literal["kept", "stretched"] = "kept") -> EvalView:
    """Returns the plain view of a protocol's ``aspect``; of size 0 the image at its own size."""
    if size == 0:
        return OriginalView()
    return StretchedView(size) if aspect == "stretched" else EvalView(size)


@dataclass(frozen=True)
class TrainView:
    """A random view: scale, rotation, flip, blur, and a crop to a square padded as in ``EvalView``.

    Attributes:
        size: side of the square, pixels.
        scale: range of the random scale factor.
        rotate: largest rotation either way, degrees; the corners become mean colour and 255.
        rotate_probability: probability of a rotation (0.5 in the released code of PFENet, SCL and SD-AANet).
        flip: probability of a horizontal flip.
        blur: probability of a Gaussian blur (5 x 5, sigma 1.1).
        resize: "none" scales the original (PFENet); "letterbox" scales the size that just fits the
            square, for views much smaller than the photographs; "stretch" scales the square itself, which
            the image fills whatever its aspect (PANet, SRPNet).

    Raises:
        ValueError: the probability is not in [0, 1], or ``resize`` is unknown.
    """

    size: int
    scale: tuple[float, float] = (0.9, 1.1)
    rotate: float = 10.0
    flip: float = 0.5
    blur: float = 0.5
    resize: Literal["none", "letterbox", "stretch"] = "none"
    rotate_probability: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.rotate_probability <= 1.0:
            raise ValueError(f"rotate_probability must be in [0, 1], got {self.rotate_probability}")
        check_choices(self)

    def __repr__(self) -> str:
        """The fields, as in keys of stored views: one that older views lacked only where it differs."""
        shown = [
            f.name for f in fields(self) if f.name != "rotate_probability" or self.rotate_probability != 1.0
        ]
        return f"TrainView({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def __call__(
        self, image: Tensor, labels: Tensor, draws: Draws, keep: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns a random view of an image, a pure function of its arguments."""
        from torchvision import tv_tensors
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional

        height, width = int(image.shape[-2]), int(image.shape[-1])
        factor = draws.uniform(*self.scale)
        if self.resize == "letterbox":
            factor *= self.size / max(height, width)
        whole = (self.size, self.size) if self.resize == "stretch" else (height, width)
        hw = scaled(whole, factor)
        picture = tv_tensors.Image(resize_images(unit_image(image), hw))
        mask = tv_tensors.Mask(resize_labels(labels, hw))
        angle, flip, blur = draws.uniform(-self.rotate, self.rotate), draws.uniform(), draws.uniform()
        if self.rotate > 0 and (self.rotate_probability == 1.0 or draws.chance(self.rotate_probability)):
            turn = InterpolationMode.BILINEAR
            picture = functional.rotate(picture, angle, interpolation=turn, fill=list(IMAGENET_MEAN))
            mask = functional.rotate(mask, angle, fill=IGNORE)
        if flip < self.flip:
            picture, mask = functional.horizontal_flip(picture), functional.horizontal_flip(mask)
        if blur < self.blur:
            picture = functional.gaussian_blur(picture, [_BLUR_KERNEL] * 2, [_BLUR_SIGMA] * 2)
        top, left, h, w = self._window(mask.as_subclass(Tensor), draws, keep)
        picture = functional.crop(picture, top, left, h, w).as_subclass(Tensor)
        mask = functional.crop(mask, top, left, h, w).as_subclass(Tensor)
        return pad_images(picture, self.size).clamp_(0, 1), pad_labels(mask, self.size)

    def _window(self, mask: Tensor, draws: Draws, keep: int | None) -> tuple[int, int, int, int]:
        """Returns (top, left, h, w) of a crop no larger than the square."""
        height, width = mask.shape
        h, w = min(height, self.size), min(width, self.size)
        target = mask == keep if keep is not None and (h, w) != (height, width) else None
        total = int(target.sum()) if target is not None else 0
        best, best_inside = (0, 0), -1
        for _ in range(_CROP_TRIES):
            corner = (draws.below(height - h + 1), draws.below(width - w + 1))
            if target is None:
                best = corner
                break
            inside = int(target[corner[0] : corner[0] + h, corner[1] : corner[1] + w].sum())
            if inside > best_inside:
                best, best_inside = corner, inside
            if inside >= _KEPT * total:
                break
        return (*best, h, w)
