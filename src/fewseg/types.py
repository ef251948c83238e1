"""Everything that crosses a border between the rooms of fewseg, as values.

Shape letters, used in every docstring: B episodes, K shots, N ways, H W image pixels, h w feature
cells, C channels of a backbone map, d reduced channels, n any number of independent items.
Masks are uint8: 0 background, 1 foreground, 255 ignore; with N > 1 ways they hold 0 background, j = 1 .. N
the episode's ways in order, 255 ignore. Label maps hold class ids and 255 = ignore.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from fewseg.errors import DataError as DataError

IGNORE = 255


def value_before(of: Field[Any]) -> Any:
    """The value of a config's field in stored configs that lack it, from its metadata ``before``.

    A field that is added later has one: stored configs without it are read with that value, what they were
    made with, whatever the default is now; with that value it is left out of JSON, so that digests stay.
    ``MISSING`` for the other fields.
    """
    return of.metadata.get("before", MISSING)


def check_choices(config: Any, where: str = "") -> None:
    """Checks the fields of a dataclass whose type is a Literal.

    Raises:
        ValueError: a value is invalid; the message begins with ``where``.
    """
    kind: type = type(config)
    for name, choices in _choices(kind).items():
        if (value := getattr(config, name)) not in choices:
            raise ValueError(f"{where}{name} must be one of {choices}, got {value!r}")


def check_at_least(config: Any, least: float, *names: str) -> None:
    """Checks fields of a config that hold numbers.

    Raises:
        ValueError: a number is below the least one, or NaN.
    """
    for name in names:
        if not (value := getattr(config, name)) >= least:
            raise ValueError(f"{name} must be {least:g} or more, got {value}")


def check_above(config: Any, limit: float, *names: str) -> None:
    """Checks fields of a config that hold numbers.

    Raises:
        ValueError: a number is not above the limit.
    """
    for name in names:
        if not (value := getattr(config, name)) > limit:
            raise ValueError(f"{name} must be above {limit:g}, got {value}")


@lru_cache(maxsize=128)
def _choices(kind: type) -> Mapping[str, tuple[Any, ...]]:
    hints = get_type_hints(kind).items()
    return {name: get_args(hint) for name, hint in hints if get_origin(hint) is Literal}


def at_scale(level: str, scale: float) -> str:
    """The name of a level's map of images that were resized by a factor other than 1."""
    return f"{level}@{scale:g}"


@dataclass(frozen=True, kw_only=True)
class Features:
    """Backbone maps of n images."""

    maps: Mapping[str, Tensor]  # level name ("stem", "layer1" .. "layer4") to a (n, C, h, w) tensor.
    image_size: tuple[int, int]  # (H, W) of the images that went in, in pixels

    def __len__(self) -> int:
        return int(next(iter(self.maps.values())).shape[0])

    def __getitem__(self, level: str) -> Tensor:
        if level not in self.maps:
            raise ValueError(
                f"the backbone gives no level {level!r}; it gives {sorted(self.maps)}: "
                "choose another level in the method's config or another backbone"
            )
        return self.maps[level]

    def select(self, index: Tensor | Sequence[int] | slice) -> Features:
        """Returns the images at ``index`` (any tensor index of the first axis)."""
        return Features(maps={k: v[index] for k, v in self.maps.items()}, image_size=self.image_size)

    def at_scale(self, scale: float) -> Features:
        """Returns the maps of the images resized by a factor, under the names of their levels.

        Args:
            scale: factor of both sides, above 0; 1 gives these features.

        Raises:
            ValueError: the images were not read at this scale.
        """
        if scale == 1:
            return self
        mark = at_scale("", scale)
        maps = {k.removesuffix(mark): v for k, v in self.maps.items() if k.endswith(mark)}
        if not maps:
            raise ValueError(
                f"these features were not read at scale {scale:g} of their images: take them from "
                "``extract`` of the method in eval mode"
            )
        return Features(maps=maps, image_size=self.image_size)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Features:
        """Returns the same features on another device or in another floating type."""
        maps = {k: v.to(device=device, dtype=dtype) for k, v in self.maps.items()}
        return Features(maps=maps, image_size=self.image_size)

    @staticmethod
    def stack(items: Sequence[Features]) -> Features:
        """Joins features along the first axis; all must have the same levels and sizes."""
        sizes = {f.image_size for f in items}
        if len(sizes) != 1:
            raise ValueError(f"features of different image sizes cannot be joined: {sorted(sizes)}")
        maps = {k: torch.cat([f.maps[k] for f in items]) for k in items[0].maps}
        return Features(maps=maps, image_size=items[0].image_size)


@dataclass(frozen=True, kw_only=True)
class EncodedShots:
    """A support set whose images have been through the backbone.

    With several ways the images of all of them stand on the shot axis, and each way may have a K of its own.

    Attributes:
        features: B * K images, the shot axis running fastest.
        masks: (B, K, H, W) uint8 in {0, 1, 255}; with several ways in {0, 1 .. N, 255}, so that an image
            also shows where the other ways are.
        way_of: the way, 1 .. N, that each of the K images was given for; all of way 1 by default.

    Raises:
        ValueError: ``way_of`` has not K entries, a way has no image, or images and masks differ in number.
    """

    features: Features
    masks: Tensor
    way_of: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.way_of:
            object.__setattr__(self, "way_of", (1,) * self.shots)
        check_ways(self.way_of, self.shots)
        if len(self.features) != self.masks.shape[0] * self.shots:
            raise ValueError(
                f"{len(self.features)} support images for {self.masks.shape[0]} sets of {self.shots} masks: "
                "give one image a mask, the shot axis running fastest"
            )

    @property
    def shots(self) -> int:
        """Support images of a set: K, or the sum of the ways' K."""
        return int(self.masks.shape[1])

    @property
    def ways(self) -> int:
        """N."""
        return max(self.way_of, default=1)

    def one_way(self, way: int) -> EncodedShots:
        """The two-class support set of one way: its own images, every other way being background."""
        if self.ways == 1:
            return self
        places = [k for k, w in enumerate(self.way_of) if w == way]
        binary = _one_vs_rest(self.masks[:, places], way)
        index = torch.arange(len(self.features)).view(-1, self.shots)[:, places].flatten()
        return EncodedShots(features=self.features.select(index), masks=binary)


@dataclass(frozen=True, kw_only=True)
class RaggedShots:
    """A support set whose images differ in size.

    Attributes:
        shots: K sets of one image each, masks (1, 1, H, W) in {0, 1 .. N, 255}.
        way_of: the way, 1 .. N, that each of the K images was given for; all of way 1 by default.

    Raises:
        ValueError: a set is not of one image, ``way_of`` has not K entries, or a way has no image.
    """

    shots: tuple[EncodedShots, ...]
    way_of: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.way_of:
            object.__setattr__(self, "way_of", (1,) * len(self.shots))
        check_ways(self.way_of, len(self.shots))
        if any(one.masks.shape[:2] != (1, 1) for one in self.shots):
            raise ValueError("images of different sizes must be given one by one, in sets of one image")

    @property
    def ways(self) -> int:
        """N."""
        return max(self.way_of)

    def one_way(self, way: int) -> RaggedShots:
        """The two-class support set of one way, see ``EncodedShots``."""
        shots = [one for one, of in zip(self.shots, self.way_of, strict=True) if of == way]
        return RaggedShots(shots=tuple(replace(one, masks=_one_vs_rest(one.masks, way)) for one in shots))


def _one_vs_rest(masks: Tensor, way: int) -> Tensor:
    """Masks of one way: 1 where it is, 255 where 255 is, 0 elsewhere."""
    return (masks == way).to(masks.dtype).masked_fill_(masks == IGNORE, IGNORE)


def check_ways(way_of: Sequence[int], shots: int) -> None:
    """Raises a ValueError unless every support image belongs to a way and every way has one."""
    if len(way_of) != shots or set(way_of) != set(range(1, max(way_of, default=1) + 1)):
        raise ValueError(
            f"way_of {tuple(way_of)} for {shots} support images: give one number an image, and at least one "
            "image for each way 1 .. N"
        )


@dataclass(frozen=True, kw_only=True)
class EncodedEpisodes:
    """A batch of B training episodes after the backbone: the only value that carries query masks."""

    support: EncodedShots  # the support sets
    query: Features  # B query images
    query_masks: Tensor  # (B, H, W) uint8 in {0, 1, 255}; with several ways in {0, 1 .. N, 255}.
    # (B,) int64 naming the training pairs, for methods that remember what they last predicted for
    # each (CANet); None where nobody keeps count
    pair_ids: Tensor | None = None
    # (B, H, W) the queries' pixels by the data set's class numbers, base classes alone, for methods that
    # learn those too (BAM): 0 elsewhere, 255 where ignored; None where they are not known
    labels: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class ImageEpisodes:
    """A batch of B training episodes as images, before the backbone."""

    support_images: Tensor  # (B, K, 3, H, W) RGB in [0, 1]
    support_masks: Tensor  # (B, K, H, W) uint8 in {0, 1, 255}; with several ways in {0, 1 .. N, 255}.
    query_images: Tensor  # (B, 3, H, W) RGB in [0, 1]
    query_masks: Tensor  # (B, H, W) uint8, as ``support_masks``
    way_of: tuple[int, ...] = ()  # see ``EncodedShots``
    pair_ids: Tensor | None = None  # see ``EncodedEpisodes``
    labels: Tensor | None = None  # see ``EncodedEpisodes``


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """Named scalar losses and their weights; ``total`` is what the optimiser minimises."""

    terms: Mapping[str, Tensor]
    weights: Mapping[str, float] = field(default_factory=dict)
    # sizes, such as a prototype's length, that are not minimised but logged: a training in which one vanishes
    # has collapsed
    watched: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """Weighted sum of the terms (weight 1 where none is given)."""
        parts = [self.weights.get(name, 1.0) * value for name, value in self.terms.items()]
        return torch.stack(parts).sum()


@dataclass(frozen=True, kw_only=True)
class Guides:
    """What n independent guides (a shot, or several shots joined) give the decoder, by name."""

    # name to (n, ...). Every method has "vectors" (n, V, d), which the decoder compares; a method adds what
    # else it needs.
    maps: Mapping[str, Tensor]
    # (n, J, P, C) unit features of foreground cells of the J joined shots, zero where padded; (n, 1, 0, 0) by
    # default, for methods without a prior map
    keys: Tensor = field(default_factory=lambda: torch.zeros(0, 1, 0, 0))
    # (n, J, P) which keys are real
    valid: Tensor = field(default_factory=lambda: torch.zeros(0, 1, 0, dtype=torch.bool))

    def __post_init__(self) -> None:
        if len(self.keys) == 0 < len(self):
            first = next(iter(self.maps.values()))
            object.__setattr__(self, "keys", first.new_zeros(len(self), 1, 0, 0))
            object.__setattr__(self, "valid", first.new_zeros(len(self), 1, 0, dtype=torch.bool))

    def __len__(self) -> int:
        return int(next(iter(self.maps.values())).shape[0])

    def __getitem__(self, name: str) -> Tensor:
        return self.maps[name]

    @property
    def shots(self) -> int:
        """J, the shots that are joined in each guide."""
        return int(self.keys.shape[1])

    def select(self, index: Tensor | Sequence[int] | slice) -> Guides:
        """Returns the guides at ``index`` (any tensor index of the first axis)."""
        maps = {k: v[index] for k, v in self.maps.items()}
        return Guides(maps=maps, keys=self.keys[index], valid=self.valid[index])

    def without_keys(self) -> Guides:
        """Keeps the number of joined shots and no key, for where the prior maps are known already."""
        return Guides(maps=self.maps, keys=self.keys[:, :, :0], valid=self.valid[..., :0])

    def joined(self, shots: int, maps: Mapping[str, Tensor]) -> Guides:
        """B guides with the given maps and the keys of each ``shots`` of these B * K guides side by side."""
        keys = self.keys.squeeze(1).unflatten(0, (-1, shots))
        valid = self.valid.squeeze(1).unflatten(0, (-1, shots))
        return Guides(maps=maps, keys=keys, valid=valid)

    @staticmethod
    def stack(items: Sequence[Guides]) -> Guides:
        """Joins guides along the first axis, padding the keys to the largest count."""
        if len(items) == 1:
            return items[0]
        longest = max(g.keys.shape[2] for g in items)
        keys = [_pad(g.keys, longest, axis=2) for g in items]
        valid = [_pad(g.valid, longest, axis=2) for g in items]
        maps = {k: torch.cat([g.maps[k] for g in items]) for k in items[0].maps}
        return Guides(maps=maps, keys=torch.cat(keys), valid=torch.cat(valid))


def _pad(values: Tensor, length: int, *, axis: int) -> Tensor:
    missing = length - values.shape[axis]
    if missing <= 0:
        return values
    shape = list(values.shape)
    shape[axis] = missing
    return torch.cat([values, values.new_zeros(shape)], dim=axis)


@dataclass(frozen=True, kw_only=True)
class QueryMaps:
    """What a query brings to the decoder, computed once for all its guides."""

    mid: Tensor  # (n, d, h, w) mid-level feature
    # (n, C, h', w') map that the prior compares, of unit length; without channels by default
    prior: Tensor = field(default_factory=lambda: torch.zeros(0, 0, 0, 0))
    # name to (n, ...): what else a method compares with every guide
    maps: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.prior) == 0 < len(self.mid):
            object.__setattr__(self, "prior", self.mid[:, :0])

    def select(self, index: Tensor | slice) -> QueryMaps:
        """Returns the queries at ``index`` of the first axis."""
        maps = {k: v[index] for k, v in self.maps.items()}
        return QueryMaps(mid=self.mid[index], prior=self.prior[index], maps=maps)

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the feature grid."""
        return int(self.mid.shape[-2]), int(self.mid.shape[-1])


class State:
    """What ``encode_support`` gives and ``segment`` takes."""


@dataclass(frozen=True, kw_only=True)
class SupportState(State):
    """An encoded support set of one way: a value that serves any number of queries, threads and users."""

    # B * S guides, the guide axis running fastest; S is 1 where shots are joined before the decoder and K
    # where each shot is scored on its own
    guides: Guides
    weights: Tensor  # (B, S) share of each guide's scores in the sum

    @property
    def scored(self) -> int:
        """S."""
        return int(self.weights.shape[1])


@dataclass(frozen=True, kw_only=True)
class WaysState(State):
    """Support sets of N ways, each encoded on its own against the rest (methods of two classes)."""

    ways: tuple[SupportState, ...]  # the state of way 1, of way 2, and so on


@dataclass(frozen=True, kw_only=True)
class PrototypeState(State):
    """B support sets as prototypes: a value that serves any number of queries, threads and users."""

    sets: Tensor  # (B, T, 1 + N, C) T sets of prototypes, background first; T is 1 without iteration
    weights: Tensor  # (B, T) rho_n of SRPNet's Eq. 13.
    # (B, 1 + N), whether any support image shows the class (the background, way 1, ..). A class that none
    # shows wins nowhere.
    present: Tensor
    # (B, S), whether a support's mask fills half of no cell, so that the nearest cells stand for it
    vanished: Tensor
    diverged: Tensor  # (B,), whether iteration was stopped at its best set
