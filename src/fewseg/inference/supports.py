"""A set of annotated and encoded images, as one value."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fewseg.annotations.options import ValueRange
from fewseg.annotations.values import check_classes
from fewseg.engine.choices import Precision
from fewseg.errors import first_line
from fewseg.inference.model import GUIDE, EncodedImage, Model, Whole, view_masks
from fewseg.inference.options import ModelOptions
from fewseg.ops.files import atomic_write_bytes, parse_json
from fewseg.ops.geometry import resize_labels, scaled
from fewseg.types import IGNORE, DataError, EncodedShots, Features


@dataclass(frozen=True, kw_only=True)
class SupportImage:
    """One annotated image, encoded."""

    image: EncodedImage
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    """Class to (n, S, S) uint8 masks in {0, 1, 255} of its n views; empty where no class is shown."""
    whole: Mapping[str, Tensor] = field(default_factory=dict)
    """Class to (H, W) uint8 mask in {0, 1, 255} of the image, at most 1024 pixels a side
    (:func:`whole_mask`), which candidates are tested on; empty where the masks are not known."""

    @classmethod
    def of(cls, image: EncodedImage, masks: Mapping[str, Tensor]) -> SupportImage:
        """Returns an encoded image with the masks (H, W) uint8 in {0, 1, 255} of some classes."""
        return cls(
            image=image,
            masks={name: view_masks(mask, image.windows) for name, mask in masks.items()},
            whole={name: whole_mask(mask) for name, mask in masks.items()},
        )

    def shows(self, name: str) -> bool:
        """Whether a class is marked on the image."""
        return name in self.masks and bool((self.masks[name] == 1).any())

    def is_negative(self, name: str) -> bool:
        """Whether the image is known not to show a class: no pixel is marked, and none is left out."""
        if not self.masks:
            return True
        unsure = name in self.whole and bool((self.whole[name] == IGNORE).any())
        return name in self.masks and not self.shows(name) and not unsure

    def truth(self, name: str) -> Tensor:
        """Returns (n, S, S) in {0, 1, 255}: where a class is; all background for a class without a mask."""
        if name in self.masks:
            return self.masks[name]
        masks = next(iter(self.masks.values()), None)
        return _empty_masks(self.image) if masks is None else torch.where(masks == IGNORE, masks, 0)

    def whole_truth(self, name: str) -> Tensor | None:
        """Returns :meth:`truth` of the image, (H, W); None where a mask is known for the views only."""
        if not set(self.masks) <= set(self.whole):
            return None
        if name in self.masks:
            return self.whole[name]
        for other in self.masks:
            return torch.where(self.whole[other] == IGNORE, self.whole[other], 0)
        return _empty_whole(self.image.size)


@dataclass(frozen=True, kw_only=True)
class ClassSupport:
    """What a segmenter knows about a class.

    Attributes:
        name: the class.
        shots: K, the number of images that show it.
        negatives: the number of images known not to show it.
        digests: digests of the images of the call that returned this value, in their order, for
            ``Segmenter.remove``.
    """

    name: str
    shots: int
    negatives: int
    digests: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SupportSet:
    """All annotated images of all classes: an immutable value that threads can share.

    Attributes:
        classes: the names of ways 1 .. N, in the order in which they were added.
        images: the images with their masks, one entry for each image.
        value_range: values that became 0 and 255 in images of more than 8 bits a pixel; None without any.
    """

    classes: tuple[str, ...] = ()
    images: tuple[SupportImage, ...] = ()
    value_range: ValueRange | None = None

    def added(self, new: SupportImage) -> SupportSet:
        """Returns the set with an annotated image; a known image keeps its masks of other classes.

        A new mask of a class replaces the image's old one. A negative of all classes stays a negative of the
        present ones without a new mask. An image without masks is a negative of all classes, also of those
        that are added later, unless it shows one of them.
        """
        classes = tuple(dict.fromkeys([*self.classes, *new.masks]))
        images = {support.image.digest: support for support in self.images}
        known = images.setdefault(new.image.digest, new)
        if new.masks:
            empty = {} if known.masks else dict.fromkeys(self.classes, _empty_masks(new.image))
            of_empty = {name: _empty_whole(new.image.size) for name in empty}
            rest = {name: mask for name, mask in known.whole.items() if name not in new.masks}
            known = replace(
                known, masks={**known.masks, **empty, **new.masks}, whole={**rest, **of_empty, **new.whole}
            )
        elif not any(map(known.shows, known.masks)):
            known = replace(known, masks={}, whole={})
        images[new.image.digest] = known
        return replace(self, classes=classes, images=tuple(images.values()))

    def annotated(
        self, images: Sequence[SupportImage], names: Sequence[str] | None = None, listed: Sequence[str] = ()
    ) -> SupportSet:
        """As :meth:`added` for several images, whose classes and masks must be consistent.

        Args:
            images: the annotated images.
            names: names of the images in error messages.
            listed: an order for new classes; others come after them.

        Raises:
            ValueError: a class name is invalid, a class is shown nowhere, or no masks are given of an image
                that shows a class.
        """
        supports = self
        for i, new in enumerate(images):
            earlier = [support for support in supports.images if support.image.digest == new.image.digest]
            shown = [name for name in supports.classes if earlier and earlier[0].shows(name)]
            if shown and not new.masks:
                raise ValueError(
                    f"{names[i] if names else 'the image'} has no masks, so it shows none of the classes, "
                    f"but it is already an example of {shown[0]!r}: give its masks, or remove it there first"
                )
            supports = supports.added(new)
        order = (*self.classes, *listed, *supports.classes)
        known = tuple(name for name in dict.fromkeys(order) if name in supports.classes)
        supports = replace(supports, classes=known)
        if supports.classes:
            check_classes(supports.classes)
        unseen = [name for name in supports.classes if not supports.positives(name)]
        if unseen:
            raise ValueError(
                f"no mask of {unseen[0]!r} has foreground: a class needs at least one image that shows it; "
                "images with empty masks are its negatives"
            )
        return supports

    def without(self, name: str, digest: str | None = None) -> SupportSet:
        """Returns the set without a class, or without one image's annotation of it.

        Images annotated only for it are removed too, as are classes without any mask left. A negative of all
        classes stays a negative of the other present ones.

        Raises:
            ValueError: there is no such class, no such image of it, or negatives alone would be left of it.
        """
        self.support(name)
        digests = [s.image.digest for s in self.images if s.shows(name) or s.is_negative(name)]
        if digest is not None and digest not in digests:
            raise ValueError(
                f"unknown image {digest!r} of {name!r}; its images are {', '.join(digests)}: give one of "
                "them, or none to remove the whole class"
            )
        images = []
        for support in self.images:
            masks = support.masks
            if digest == support.image.digest and not masks:
                masks = dict.fromkeys(self.classes, _empty_masks(support.image))
            if name not in masks or digest not in (None, support.image.digest):
                images.append(support)
            elif len(masks) > 1:
                images.append(replace(support, masks={k: v for k, v in masks.items() if k != name}))
        named = {k for support in images for k in support.masks}
        left = replace(self, classes=tuple(k for k in self.classes if k in named), images=tuple(images))
        if name in left.classes and not left.positives(name):
            raise ValueError(f"only negatives of {name!r} would be left: remove the whole class")
        return left

    def to(self, device: torch.device) -> SupportSet:
        """Returns the set with its features on a device."""
        moved = [replace(s.image, features=s.image.features.to(device)) for s in self.images]
        images = [replace(s, image=image) for s, image in zip(self.images, moved, strict=True)]
        return replace(self, images=tuple(images))

    def of(self, images: Iterable[SupportImage]) -> SupportSet:
        """Returns a set of the given images and of the classes that they show."""
        images = tuple(images)
        classes = tuple(name for name in self.classes if any(s.shows(name) for s in images))
        images = [replace(s, masks={k: m for k, m in s.masks.items() if k in classes}) for s in images]
        return replace(self, classes=classes, images=tuple(images))

    def positives(self, name: str) -> list[SupportImage]:
        """The K images that show a class."""
        return [support for support in self.images if support.shows(name)]

    def negatives(self, name: str) -> list[SupportImage]:
        """The images that are known not to show a class."""
        return [support for support in self.images if support.is_negative(name)]

    def support(self, name: str, digests: tuple[str, ...] = ()) -> ClassSupport:
        """Returns what is known about a class; raises a ValueError if there is no such class."""
        if name not in self.classes:
            raise ValueError(f"unknown class {name!r}; the classes are {list(self.classes)}: add it first")
        shots, negatives = len(self.positives(name)), len(self.negatives(name))
        return ClassSupport(name=name, shots=shots, negatives=negatives, digests=digests)

    def encoded(self, negatives: bool) -> EncodedShots:
        """Returns the set as the input of methods: one support for each class and view that shows it.

        Args:
            negatives: also add the images that show no class at all, as examples of the background.

        Raises:
            ValueError: a class is shown nowhere.
        """
        rows: list[tuple[SupportImage, int, int]] = []  # support, view, way
        for way, name in enumerate(self.classes, 1):
            named = [(s, s.masks[name]) for s in self.images if name in s.masks]
            shown = [(s, v, way) for s, mask in named for v in range(len(mask)) if (mask[v] == 1).any()]
            if not shown:
                raise ValueError(
                    f"the class {name!r} is shown on none of the supports: annotate it on at least one image"
                )
            rows += shown
        if negatives:
            empty = [s for s in self.images if not any(s.shows(name) for name in self.classes)]
            rows += [(s, v, 1) for s in empty for v in range(len(s.image.windows))]
        masks = torch.stack([self._labels(*row) for row in rows])
        features = Features.stack(
            [support.image.features.select(slice(view, view + 1)) for support, view, _ in rows]
        )
        device = next(iter(features.maps.values())).device
        return EncodedShots(
            features=features, masks=masks.unsqueeze(0).to(device), way_of=tuple(way for _, _, way in rows)
        )

    def _labels(self, support: SupportImage, view: int, way: int) -> Tensor:
        """(S, S): 0, the ways marked on a view, or 255; the given way overrides the others."""
        if not support.masks:
            return _empty_masks(support.image)[view]
        way_masks = support.masks.get(self.classes[way - 1])
        way_masks = torch.zeros_like(next(iter(support.masks.values()))) if way_masks is None else way_masks
        labels = torch.zeros_like(way_masks[view])
        labels[way_masks[view] == IGNORE] = IGNORE
        for name, mask in support.masks.items():
            labels[mask[view] == 1] = self.classes.index(name) + 1
        labels[way_masks[view] == 1] = way
        return labels


def _empty_masks(image: EncodedImage) -> Tensor:
    """(n, S, S): the mask of a class that an image does not show: 0, and 255 outside the image."""
    return view_masks(torch.zeros(image.size, dtype=torch.uint8), image.windows)


_MOST_SIDE = 1024


def whole_mask(mask: Tensor) -> Tensor:
    """A mask (H, W) of an image, at most 1024 pixels a side."""
    return resize_labels(mask, _whole_size((mask.shape[0], mask.shape[1])))


def _whole_size(hw: tuple[int, int]) -> tuple[int, int]:
    factor = _MOST_SIDE / max(hw)
    return hw if factor >= 1 else scaled(hw, factor)


def _empty_whole(hw: tuple[int, int]) -> Tensor:
    return torch.zeros(_whole_size(hw), dtype=torch.uint8)


_KEY, _SCHEMA = "fewseg-supports", 1
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "U8": torch.uint8, "I64": torch.int64}  # by name


def save_supports(path: Path, supports: SupportSet, model: Model) -> None:
    """Writes a support set that the model encoded, atomically; raises an OSError where it cannot."""
    tensors: dict[str, Tensor] = {}
    shots: list[dict[str, Any]] = []
    for i, support in enumerate(supports.images):
        image, masks = support.image, {supports.classes.index(k): mask for k, mask in support.masks.items()}
        for level, maps in image.features.maps.items():
            tensors[f"features.{i}.{level}"] = maps.detach().cpu().contiguous()
        tensors |= {f"masks.{i}.{j}": mask.cpu().contiguous() for j, mask in masks.items()}
        whole = {j: support.whole[supports.classes[j]] for j in masks if supports.classes[j] in support.whole}
        tensors |= {f"whole.{i}.{j}": mask.contiguous() for j, mask in whole.items()}
        shots.append(
            {
                "size": image.size,
                "image_size": image.features.image_size,
                "digest": image.digest,
                "windows": [[w.top, w.left, *w.box.original, w.box.size] for w in image.windows],
                "levels": list(image.features.maps),
                "masks": list(masks),
            }
        )
    header = {
        "schema": _SCHEMA,
        "model": model.digest,
        "model_name": model.name,
        "precision": model.precision,
        "size": model.size,
        "tiles": None if isinstance(model.views, Whole) else [model.views.side, model.views.overlap],
        "classes": supports.classes,
        "value_range": supports.value_range,
        "shots": shots,
    }
    atomic_write_bytes(path, save(tensors, metadata={_KEY: json.dumps(header)}))


def _header_of(path: Path) -> dict[str, Any]:
    """The header of a saved support set; empty where it cannot be read, which load_supports reports."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(parse_json((file.metadata() or {})[_KEY]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return {}


def precision_of_supports(path: Path) -> Precision:
    """The precision that a saved support set was encoded in; fp32 where its file does not record it."""
    return "bf16" if _header_of(path).get("precision") == "bf16" else "fp32"


def options_of_supports(path: Path, options: ModelOptions) -> ModelOptions:
    """The options, completed by the precision and the input size that a saved set was encoded with."""
    header = _header_of(path)
    if options.precision == "auto":
        options = replace(options, precision=precision_of_supports(path))
    if options.size is None and options.tiles is None and "size" in header:
        side, overlap = header.get("tiles") or (None, options.overlap)
        options = replace(options, size=header["size"], tiles=side, overlap=overlap)
    return options


def load_supports(path: Path, model: Model) -> SupportSet:
    """Reads a support set that the model encoded."""
    if not path.is_file():
        raise DataError(f"there is no support set at {path}: give a file of save_supports")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise DataError(f"{path} is not a support set of fewseg: give a file of save_supports")
            header = parse_json(metadata[_KEY])
            if header["schema"] > _SCHEMA:
                raise DataError(
                    f"{path} has support schema {header['schema']}, this version reads up to {_SCHEMA}: "
                    "update fewseg"
                )
            if header["model"] != model.digest:
                raise DataError(
                    f"{path} was encoded by the model {header['model']} ({header['model_name']}, "
                    f"{header.get('precision', 'fp32')}), this one is {model.digest} ({model.name}, "
                    f"{model.precision}): features of different models are incompatible. Use the same "
                    "checkpoint, input size, views, fusion and precision, or encode the supports again"
                )
            return _checked(header, file, model)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # an edited file can raise anything
        raise DataError(
            f"{path} is not a complete support set ({first_line(error)}): save it again"
        ) from error


def _checked(header: dict[str, Any], file: Any, model: Model) -> SupportSet:
    """The set of a file, after checking that its values could come from :func:`save_supports`."""
    classes, shapes = tuple(map(str, header["classes"])), model.map_shapes()
    check_classes(classes)
    images = [_support(i, shot, classes, file, model, shapes) for i, shot in enumerate(header["shots"])]
    values = header.get("value_range")
    if values is not None:
        low, high = map(float, values)
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"value_range must be two rising numbers, got {values}")
        values = (low, high)
    supports = SupportSet(classes=classes, images=tuple(images), value_range=values)
    if not all(map(supports.positives, classes)):
        raise ValueError("it shows no class, or not all that it names")
    if len({support.image.digest for support in images}) < len(images):
        raise ValueError("it holds an image twice")
    return supports


def _support(
    i: int,
    stored: dict[str, Any],
    classes: tuple[str, ...],
    file: Any,
    model: Model,
    shapes: Mapping[str, tuple[int, ...]],
) -> SupportImage:
    size, box = _pair(stored["size"]), model.size
    tile = None if isinstance(model.views, Whole) else model.views.side or box
    if min(size) < 1 or (tile is not None and size[0] * size[1] > len(stored["windows"]) * tile**2):
        raise ValueError(f"image {i} has {len(stored['windows'])} views, too few for {size} pixels")
    windows = model.views.windows(size, box)
    if stored["windows"] != [[w.top, w.left, *w.box.original, w.box.size] for w in windows]:
        raise ValueError(
            f"image {i} has views at other places or of other sizes than the model cuts from {size} pixels"
        )
    count, kinds = len(windows), (torch.float32, *([torch.bfloat16] if model.precision == "bf16" else []))
    keys = set(file.keys())

    def tensor(key: str, what: str, shape: tuple[int, ...], dtypes: Sequence[torch.dtype]) -> Tensor:
        got = "none"
        if key in keys:  # what the header states is checked before memory is taken
            stored = file.get_slice(key)
            stored_shape, name = tuple(stored.get_shape()), stored.get_dtype()
            dtype = _DTYPES.get(name)
            if stored_shape == shape and dtype in dtypes:
                return cast(Tensor, file.get_tensor(key))
            got = f"{stored_shape} {dtype or name}"
        raise ValueError(f"image {i} needs {what} of {shape} {dtypes[0]}, got {got}")

    def mask(key: str, name: str, shape: tuple[int, ...]) -> Tensor:
        values = tensor(key, f"a mask of {name!r}", shape, (torch.uint8,))
        if not bool(((values < 2) | (values == IGNORE)).all()):
            raise ValueError(f"image {i} has a mask of {name!r} with values other than 0, 1 and 255")
        return values

    maps = {}
    for level, shape in shapes.items():
        dtypes = (torch.uint8,) if level == GUIDE else kinds
        values = tensor(f"features.{i}.{level}", f"a map of the level {level!r}", (count, *shape), dtypes)
        if not bool(values.sum().isfinite()):
            raise ValueError(f"image {i} has a map of the level {level!r} with values that are not finite")
        # the memory layout of fresh features: sums over channels are the same to the last bit
        maps[level] = values.to(model.device).contiguous(memory_format=torch.channels_last)
    names = {j: classes[j] for j in stored["masks"]}
    masks = {name: mask(f"masks.{i}.{j}", name, (count, box, box)) for j, name in names.items()}
    places = {name: f"whole.{i}.{j}" for j, name in names.items()}
    whole = {name: mask(key, name, _whole_size(size)) for name, key in places.items() if key in keys}
    image = EncodedImage(
        features=Features(maps=maps, image_size=(box, box)),
        windows=windows,
        size=size,
        digest=str(stored["digest"]),
        model=model.digest,
    )
    return SupportImage(image=image, masks=masks, whole=whole)


def _pair(values: list[int]) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)
