"""Annotated images that have been through the backbone, as one value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fewseg.annotations.values import check_classes
from fewseg.inference.model import EncodedImage, Model, Window, view_masks
from fewseg.ops.files import atomic_path
from fewseg.ops.geometry import letterbox
from fewseg.types import IGNORE, DataError, EncodedShots, Features


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One annotated image.

    Attributes:
        image: encoded.
        masks: class to (n, S, S) uint8 in {0, 1, 255} of its n views; empty where the image shows none of the
            classes.
    """

    image: EncodedImage
    masks: Mapping[str, Tensor] = field(default_factory=dict)

    def shows(self, name: str) -> bool:
        """Whether a class is marked on it."""
        return name in self.masks and bool((self.masks[name] == 1).any())

    def denies(self, name: str) -> bool:
        """Whether it says that a class is not on it."""
        return not self.masks or (name in self.masks and not self.shows(name))


@dataclass(frozen=True, kw_only=True)
class ClassSupport:
    """What a segmenter knows of a class.

    Attributes:
        name: the class.
        shots: K, images that show it.
        negatives: images said not to show it.
        digests: of the images of the call that gave this value, in their order; ``Segmenter.remove`` takes
            them.
    """

    name: str
    shots: int
    negatives: int
    digests: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SupportSet:
    """All annotated images of all classes: a value that threads share and that changes by being replaced.

    Attributes:
        classes: the names, way 1 on, in the order in which they came.
        shots: one for each image.
    """

    classes: tuple[str, ...] = ()
    shots: tuple[Shot, ...] = ()

    def added(self, image: EncodedImage, masks: Mapping[str, Tensor]) -> SupportSet:
        """Returns the set with an annotated image; one that is there gets these masks beside its others.

        Args:
            image: encoded.
            masks: class to (n, S, S); of a class that the image has a mask of already, the new one counts.
                An image that denied all classes goes on denying those of now that it gets no mask of. Empty:
                it denies all classes, those that are added later too, unless it shows one of them.
        """
        classes = (*self.classes, *(name for name in masks if name not in self.classes))
        for place, shot in enumerate(self.shots):
            if shot.image.digest == image.digest:
                shots = (*self.shots[:place], self._joined(shot, masks), *self.shots[place + 1 :])
                return SupportSet(classes=classes, shots=shots)
        return SupportSet(classes=classes, shots=(*self.shots, Shot(image=image, masks=masks)))

    def annotated(
        self,
        images: Sequence[EncodedImage],
        masks: Sequence[Mapping[str, Tensor]],
        names: Sequence[str] | None = None,
    ) -> SupportSet:
        """As :meth:`added`, several images, whose classes and masks must make sense together.

        Args:
            images: encoded.
            masks: of each, class to (n, S, S).
            names: what errors call the images.

        Raises:
            ValueError: a class name is not accepted, a class is shown nowhere, or no masks are given of an
                image that shows a class.
        """
        supports = self
        for i, (image, own) in enumerate(zip(images, masks, strict=True)):
            shown = supports.shown_on(image)
            if shown and not own:
                raise ValueError(
                    f"{names[i] if names else 'the image'} has no masks, so that it shows none of the "
                    f"classes, but it is an example of {shown[0]!r} already: give its masks, or remove it "
                    "there first"
                )
            supports = supports.added(image, own)
        if supports.classes:
            check_classes(supports.classes)
        unseen = [name for name in supports.classes if not supports.positives(name)]
        if unseen:
            raise ValueError(
                f"no mask of {unseen[0]!r} has foreground: a class needs one image at least that shows it; "
                "empty masks are negatives beside such images"
            )
        return supports

    def _joined(self, shot: Shot, masks: Mapping[str, Tensor]) -> Shot:
        if not masks:
            return shot if self.shown_on(shot.image) else replace(shot, masks={})
        had = shot.masks or _denials(shot.image, self.classes)
        return replace(shot, masks={**had, **masks})

    def shown_on(self, image: EncodedImage) -> list[str]:
        """The classes that are marked on an image."""
        own = [shot for shot in self.shots if shot.image.digest == image.digest]
        return [name for name in self.classes if any(shot.shows(name) for shot in own)]

    def without(self, name: str, digest: str | None = None) -> SupportSet:
        """Returns the set without a class, or without what one image says of it.

        Images that were annotated for it alone go too; a class without a mask anywhere goes too. An image
        that denied all classes goes on denying the others of now.

        Raises:
            ValueError: there is no such class, no such image of it, or negatives alone would be left of it.
        """
        self.support(name)
        digests = [s.image.digest for s in self.shots if s.shows(name) or s.denies(name)]
        if digest is not None and digest not in digests:
            raise ValueError(
                f"no image {digest!r} of {name!r}; there are {', '.join(digests)}: give one of them, or none "
                "to remove the whole class"
            )
        shots = []
        for shot in self.shots:
            named_alone = digest == shot.image.digest and not shot.masks
            masks = _denials(shot.image, self.classes) if named_alone else shot.masks
            if name not in masks or digest not in (None, shot.image.digest):
                shots.append(shot)
            elif len(masks) > 1:
                shots.append(replace(shot, masks={k: v for k, v in masks.items() if k != name}))
        named = {k for shot in shots for k in shot.masks}
        left = SupportSet(classes=tuple(k for k in self.classes if k in named), shots=tuple(shots))
        if name in left.classes and not left.positives(name):
            raise ValueError(f"only negatives of {name!r} would be left: remove the whole class")
        return left

    def only(self, places: Sequence[int]) -> SupportSet:
        """Returns the set of some of the shots, with all its classes."""
        return replace(self, shots=tuple(self.shots[i] for i in places))

    def positives(self, name: str) -> list[int]:
        """Places of the shots that show a class: its K are their number."""
        return [i for i, shot in enumerate(self.shots) if shot.shows(name)]

    def negatives(self, name: str) -> list[int]:
        """Places of the shots that say that a class is not on them."""
        return [i for i, shot in enumerate(self.shots) if shot.denies(name)]

    def support(self, name: str, digests: tuple[str, ...] = ()) -> ClassSupport:
        """Returns what is known of a class.

        Args:
            name: the class.
            digests: as in the result.

        Raises:
            ValueError: there is no such class.
        """
        if name not in self.classes:
            raise ValueError(f"there is no class {name!r}; there are {list(self.classes)}: add it first")
        shots, negatives = len(self.positives(name)), len(self.negatives(name))
        return ClassSupport(name=name, shots=shots, negatives=negatives, digests=digests)

    def encoded(self, negatives: bool) -> EncodedShots:
        """The set as methods take it: one support for each class and view that shows it.

        Args:
            negatives: add the images that show no class at all; they tell of background only.

        Raises:
            ValueError: a class is shown nowhere.
        """
        rows: list[tuple[Shot, int, int]] = []
        for way, name in enumerate(self.classes, 1):
            seen = [(s, v, way) for s in self.shots if name in s.masks for v in _views_of(s, name)]
            if not seen:
                raise ValueError(
                    f"the class {name!r} is shown on none of the supports: annotate it on one image at least"
                )
            rows += seen
        if negatives:
            empty = [s for s in self.shots if not any(s.shows(name) for name in self.classes)]
            rows += [(s, v, 1) for s in empty for v in range(len(s.image.windows))]
        masks = torch.stack([self._labels(*row) for row in rows])
        features = Features.stack([shot.image.features.select([view]) for shot, view, _ in rows])
        device = next(iter(features.maps.values())).device
        return EncodedShots(
            features=features, masks=masks.unsqueeze(0).to(device), way_of=tuple(way for _, _, way in rows)
        )

    def _labels(self, shot: Shot, view: int, way: int) -> Tensor:
        """(S, S): 0, the ways that are marked on a view, 255; the given way lies on top of the others."""
        if not shot.masks:
            return _nothing(shot.image)[view]
        own = shot.masks.get(self.classes[way - 1])
        own = torch.zeros_like(next(iter(shot.masks.values()))) if own is None else own
        labels = torch.zeros_like(own[view])
        labels[own[view] == IGNORE] = IGNORE
        for other, mask in shot.masks.items():
            labels[mask[view] == 1] = self.classes.index(other) + 1
        labels[own[view] == 1] = way
        return labels


def _nothing(image: EncodedImage) -> Tensor:
    """(n, S, S): the mask of what an image does not show."""
    return view_masks(torch.zeros(image.size, dtype=torch.uint8), image.windows)


def _denials(image: EncodedImage, classes: Sequence[str]) -> dict[str, Tensor]:
    return dict.fromkeys(classes, _nothing(image))


def _views_of(shot: Shot, name: str) -> list[int]:
    shown = (shot.masks[name] == 1).flatten(1).any(dim=1)
    return [int(v) for v in shown.nonzero().flatten()]


_KEY, _SCHEMA = "fewseg-supports", 1


def save_supports(path: Path, supports: SupportSet, model: Model) -> None:
    """Writes a support set in one step.

    Args:
        path: the file, ``.safetensors`` by custom.
        supports: encoded by the model.
        model: whose digest the file bears.

    Raises:
        OSError: the file could not be written; an older one is unchanged.
    """
    tensors: dict[str, torch.Tensor] = {}
    shots: list[dict[str, Any]] = []
    for i, shot in enumerate(supports.shots):
        for level, maps in shot.image.features.maps.items():
            tensors[f"features.{i}.{level}"] = maps.detach().cpu().contiguous()
        for name, mask in shot.masks.items():
            tensors[f"masks.{i}.{supports.classes.index(name)}"] = mask.cpu().contiguous()
        windows = [[w.top, w.left, *w.box.original, w.box.size] for w in shot.image.windows]
        shots.append(
            {
                "size": list(shot.image.size),
                "image_size": list(shot.image.features.image_size),
                "digest": shot.image.digest,
                "windows": windows,
                "levels": list(shot.image.features.maps),
                "masks": [supports.classes.index(name) for name in shot.masks],
            }
        )
    header = {
        "schema": _SCHEMA,
        "model": model.digest,
        "model_name": model.name,
        "classes": list(supports.classes),
        "shots": shots,
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: json.dumps(header)})


def load_supports(path: Path, model: Model) -> SupportSet:
    """Reads a support set.

    Args:
        path: the file.
        model: that must have encoded it.

    Raises:
        DataError: the file is missing, broken, of another kind or a newer version, or of another model.
    """
    if not path.is_file():
        raise DataError(f"there is no support set at {path}: give a file of save_supports")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise DataError(f"{path} is no support set of fewseg: give a file of save_supports")
            header = json.loads(metadata[_KEY])
            _check(header, path, model)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        return _supports(header, tensors, model)
    except DataError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path} is no whole support set ({error}): save it again") from error


def _check(header: dict[str, Any], path: Path, model: Model) -> None:
    if header["schema"] > _SCHEMA:
        raise DataError(
            f"{path} has support schema {header['schema']}, this version reads up to {_SCHEMA}: update fewseg"
        )
    if header["model"] != model.digest:
        raise DataError(
            f"{path} was encoded by the model {header['model']} ({header['model_name']}), this one is "
            f"{model.digest} ({model.name}): features of one model mean nothing to another. Use the same "
            "checkpoint, input size, views, fusion and precision, or encode the supports again"
        )


def _supports(header: dict[str, Any], tensors: dict[str, torch.Tensor], model: Model) -> SupportSet:
    classes = tuple(str(name) for name in header["classes"])
    shots = []
    for i, said in enumerate(header["shots"]):
        maps = {}
        for level in said["levels"]:
            # one layout, that of fresh features: sums over channels come out the same to the last bit
            stored = tensors[f"features.{i}.{level}"].to(model.device)
            maps[level] = stored.contiguous(memory_format=torch.channels_last)
        windows = tuple(Window(t, left, letterbox((h, w), size)) for t, left, h, w, size in said["windows"])
        image = EncodedImage(
            features=Features(maps=maps, image_size=_pair(said["image_size"])),
            windows=windows,
            size=_pair(said["size"]),
            digest=str(said["digest"]),
            model=model.digest,
        )
        masks = {classes[j]: tensors[f"masks.{i}.{j}"] for j in said["masks"]}
        for stored in (*maps.values(), *masks.values()):
            if len(stored) != len(windows):
                raise ValueError(f"image {i} has {len(windows)} views and tensors of {len(stored)}")
        shots.append(Shot(image=image, masks=masks))
    found = SupportSet(classes=classes, shots=tuple(shots))
    if not classes or not all(found.positives(name) for name in classes):
        raise ValueError("it shows no class, or not all that it names")
    return found


def _pair(values: list[int]) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)
