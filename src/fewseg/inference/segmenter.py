"""The few-shot segmenter that people use: annotated images in, masks of other images out."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar, overload

import torch

from fewseg.annotations.formats import read_supports
from fewseg.annotations.options import (
    MAX_PIXELS,
    ReadOptions,
    ValueRange,
    check_max_pixels,
    check_value_range,
)
from fewseg.annotations.values import AnnotatedImage
from fewseg.inference.choose import MOST_IMAGES, sampled
from fewseg.inference.images import ImageLike, MaskLike, as_list, read_image, read_mask_of, value_range_of
from fewseg.inference.model import EncodedImage, Model, PreparedImage, Views, load_model
from fewseg.inference.options import DEFAULT_MODEL, ModelOptions
from fewseg.inference.segmentation import Segmentation, Session
from fewseg.inference.stream import NO_MEMORY, stream
from fewseg.inference.supports import (
    ClassSupport,
    SupportImage,
    SupportSet,
    load_supports,
    options_of_supports,
    save_supports,
)
from fewseg.types import DataError

logger = logging.getLogger(__name__)

T = TypeVar("T")

AnyImage = ImageLike | PreparedImage | EncodedImage
"""An image in any form, or one that was prepared or encoded before."""


class Segmenter:
    """Segments images by annotated examples of any number of classes.

    Any number of threads may call any method: each segmentation uses the support set that was present when it
    began.

    Args:
        model: the model, which several segmenters can share.
        max_pixels: at least 1; larger images are refused, files by their header.
        value_range: values that become 0 and 255 in images of more than 8 bits a pixel. By default the 0.1
            and 99.9 percentiles of all such images in the first call that gives any, supports or others; they
            hold for all later images, so that equal values look equal in all of them.

    Example:
        >>> segmenter = Segmenter.from_checkpoint()
        >>> segmenter.add_class("rust", ["a.jpg", "b.jpg"], ["a.png", "b.png"])
        >>> segmenter.segment("c.jpg").mask("rust")
    """

    def __init__(
        self, model: Model, *, max_pixels: int = MAX_PIXELS, value_range: ValueRange | None = None
    ) -> None:
        check_max_pixels(max_pixels)
        check_value_range(value_range)
        self.model, self.max_pixels, self._fixed_range = model, max_pixels, value_range
        self._changing = threading.RLock()
        self._supports = SupportSet(value_range=value_range)
        self._session: Session | None = None

    @classmethod
    def from_checkpoint(
        cls,
        model: str | Path = DEFAULT_MODEL,
        *,
        views: Views | None = None,
        device: torch.device | str | None = None,
        max_pixels: int = MAX_PIXELS,
        value_range: ValueRange | None = None,
        **options: Any,
    ) -> Self:
        """Makes a segmenter from a checkpoint or from a recipe that needs no training.

        Args:
            model: a checkpoint (.safetensors), the name of a recipe such as "pascal_matcher_resnet50", or
                "auto", the default, by which the supports choose (``session().choice``) when they are first
                used, which takes a minute or more on two CPU cores.
            views: how images become inputs: ``Whole()``, or ``Tiles()`` for small objects in large images.
            device: by default the first GPU, or else the CPU.
            max_pixels: larger images are refused.
            value_range: values that become 0 and 255 in images of more than 8 bits a pixel.
            **options: further fields of :class:`ModelOptions`: ``size``, ``fusion``, ``precision``,
                ``backbone``, ``backbone_weights``, ``tiles``, ``overlap``.

        Raises:
            FileNotFoundError: no such checkpoint.
            ValueError: see :func:`~fewseg.inference.load_model`.
            TypeError: an option is unknown.
        """
        loaded = load_model(ModelOptions(model=str(model), **options), views=views, device=device)
        return cls(loaded, max_pixels=max_pixels, value_range=value_range)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        device: torch.device | str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Loads a segmenter of :meth:`save_pretrained` from a folder or a repository of the Hugging Face hub.

        Only safetensors, JSON and Markdown files are read; none of them can run code.

        Args:
            name: a folder, or "owner/name".
            revision: branch, tag or commit of the repository.
            device: by default the first GPU, or else the CPU.
            local_files_only: use the cached copy without network access, as ``HF_HUB_OFFLINE=1`` does.

        Raises:
            ValueError: there is no such folder or repository, or no network connection.
            DataError: the folder or repository holds no segmenter, or a broken one.
        """
        from fewseg.inference import hub

        model, supports = hub.load(name, revision=revision, device=device, local_files_only=local_files_only)
        segmenter = cls(model)
        if supports is not None:
            segmenter.load_supports(supports)
        return segmenter

    def save_pretrained(
        self, folder: str | Path, *, licence: str = "", results: str | Path | None = None
    ) -> None:
        """Writes the model with its backbone, the supports and a model card into a folder.

        Args:
            folder: created if missing; files of an earlier segmenter in it are replaced.
            licence: licence for the model card, such as "apache-2.0".
            results: a folder of ``fewseg evaluate``; results of this checkpoint are put on the card.

        Raises:
            OSError: a file could not be written.
            ValueError: ``results`` is not a folder.
        """
        from fewseg.inference import hub

        hub.save(self.model, self._given(), Path(folder), licence=licence, results=results)

    def push_to_hub(
        self,
        name: str,
        *,
        private: bool = False,
        token: str | None = None,
        licence: str = "",
        results: str | Path | None = None,
    ) -> str:
        """Uploads what :meth:`save_pretrained` writes, the supports' features too, to the Hugging Face hub.

        Args:
            name: "owner/name"; the repository is created if missing.
            private: whether a new repository is private.
            token: token of the hub; by default that of ``hf auth login``.
            licence: see :meth:`save_pretrained`.
            results: see :meth:`save_pretrained`.

        Returns:
            The address of the repository.

        Raises:
            ValueError: the name is invalid, nobody is logged in, or the hub cannot be reached.
        """
        from fewseg.inference import hub

        given = self._given()
        return hub.push(
            self.model, given, name, private=private, token=token, licence=licence, results=results
        )

    def _given(self) -> SupportSet | None:
        """The supports, or None if they show no class."""
        return self.session().supports if self.classes else None

    def empty(self) -> Self:
        """Returns a segmenter of the same model without supports, for another user."""
        return type(self)(self.model, max_pixels=self.max_pixels, value_range=self._fixed_range)

    @property
    def supports(self) -> SupportSet:
        """The annotated images, encoded."""
        return self._supports

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; a label map's 1 is the first."""
        return self._supports.classes

    @property
    def value_range(self) -> ValueRange | None:
        """Values that become 0 and 255 in images of more than 8 bits a pixel; None if not known yet."""
        return self._supports.value_range

    def learn_range(self, images: Sequence[AnyImage], before: ValueRange | None = None) -> None:
        """Takes the range of values from images of more than 8 bits, unless it is known already.

        Adding or segmenting images calls this.

        Args:
            images: 50 of them, evenly spaced, are read. Those that cannot be read are left out.
            before: the range of an earlier run, which is taken in place of the percentiles.
        """
        if self.value_range is not None:
            return
        value_range = before or value_range_of(evenly(images), self.max_pixels)
        with self._changing:
            if value_range is not None and self.value_range is None:
                self._supports = replace(self._supports, value_range=value_range)
                logger.info(
                    "images of more than 8 bits: %g .. %g become 0 .. 255 in all of them, which are the 0.1 "
                    "and 99.9 percentiles of the annotated ones; --value-range (value_range) sets others",
                    *value_range,
                )

    def prepare(self, image: ImageLike, what: str = "the image") -> PreparedImage:
        """Reads an image and cuts it into views; raises a DataError if it cannot be used."""
        if self.value_range is None:
            self.learn_range([image])
        return self.model.prepare(read_image(image, what, self.max_pixels, self.value_range))

    def encode(self, image: AnyImage) -> EncodedImage:
        """Runs an image through the backbone; other methods accept the result in place of the image.

        Raises:
            ValueError: the image cannot be read or used (DataError), or a different model encoded it.
        """
        return self.encode_all([image])[0]

    def encode_all(self, images: Sequence[AnyImage]) -> list[EncodedImage]:
        """As :meth:`encode`, for several images together."""
        supports = {support.image.digest: support.image for support in self._supports.images}
        ready: list[PreparedImage | EncodedImage] = []
        for image in images:
            if isinstance(image, EncodedImage) and image.model != self.model.digest:
                raise DataError(
                    f"the image was encoded by the model {image.model}, this one is {self.model.digest} "
                    f"({self.model.name}): encode it with this one"
                )
            given = image if isinstance(image, (EncodedImage, PreparedImage)) else self.prepare(image)
            ready.append(supports.get(given.digest, given))  # a support is encoded already
        fresh = [image for image in ready if isinstance(image, PreparedImage)]
        encoded = iter(self.model.encode(fresh) if fresh else ())
        return [image if isinstance(image, EncodedImage) else next(encoded) for image in ready]

    def add_class(
        self,
        name: str,
        images: AnyImage | Sequence[AnyImage],
        masks: MaskLike | Sequence[MaskLike | None] | None,
    ) -> ClassSupport:
        """Adds annotated images of a new or known class.

        Args:
            name: the class.
            images: one image or K.
            masks: a mask for each image. None or a mask without foreground means that the image does not
                show the class. A new mask replaces an image's old one of this class.

        Returns:
            The numbers of images of the class after the call.

        Raises:
            DataError: an image or a mask cannot be used, or their sizes differ; nothing is added.
            ValueError: the numbers of images and masks differ, the name is invalid, or no image shows the
                class; nothing is added.
        """
        shown, given = as_list(images, 4), as_list(masks, 3)
        if len(shown) != len(given) or not shown:
            raise ValueError(
                f"class {name!r}: expected a mask for each image, None for one that does not show the class, "
                f"got {len(shown)} images and {len(given)} masks"
            )
        encoded, supports = self._add(shown, [{name: mask} for mask in given])
        return supports.support(name, tuple(image.digest for image in encoded))

    def add_image(self, image: AnyImage, masks: Mapping[str, MaskLike | None]) -> EncodedImage:
        """Adds an image that is annotated for several classes at once, or for none: a negative of all.

        The last annotation of an image and a class counts. A negative of all is a negative of later classes
        too; if it is added again with masks, it stays a negative of the other classes present then.

        Args:
            image: the image, in any form.
            masks: class to mask, as in :meth:`add_class`; empty if the image shows none of the classes.

        Raises:
            DataError: as in :meth:`add_class`.
            ValueError: a name is invalid, a new class is not shown, or no masks are given for an image that
                is already an example of a class.
        """
        return self._add([image], [masks])[0][0]

    def add_annotated(self, images: Iterable[AnnotatedImage]) -> None:
        """Adds images of :func:`fewseg.annotations.read_supports`; raises as :meth:`add_image`."""
        read = list(images)
        files = [str(image.image) for image in read]
        listed = [name for image in read for name in image.listed]
        self._add(files, [image.masks for image in read], files, listed)

    def _add(
        self,
        images: Sequence[AnyImage],
        masks: Sequence[Mapping[str, Any]],
        names: Sequence[str] | None = None,
        listed: Sequence[str] = (),
    ) -> tuple[list[EncodedImage], SupportSet]:
        """Adds images with their masks; returns the encoded images and the new support set."""
        self.learn_range(images)
        encoded, annotated = self.encode_all(images), []
        known: dict[str, dict[str, Path]] = defaultdict(dict)  # class -> what its masks are stored as
        for i, (image, image_masks) in enumerate(zip(encoded, masks, strict=True), 1):
            full_masks = {
                # Masks of annotation files hold 0, 1 and 255 already; 255 alone is ignored there.
                k: torch.from_numpy(mask)
                if names is not None
                else read_mask_of(mask, image.size, f"mask {i} of {k!r}", self.max_pixels, known[k])
                for k, mask in image_masks.items()
            }
            annotated.append(SupportImage.of(image, full_masks))
        with self._changing:
            self._replace(self._supports.annotated(annotated, names, listed))
            return encoded, self._supports

    def support(self, name: str) -> ClassSupport:
        """Returns what is known about a class; raises a ValueError if there is no such class."""
        return self._supports.support(name)

    def remove(self, name: str, digest: str | None = None) -> None:
        """Removes a class, or one image's annotation of it; a class without masks left is removed too.

        Args:
            name: the class.
            digest: digest of the image (``ClassSupport.digests``, ``EncodedImage.digest``); None removes the
                class.

        Raises:
            ValueError: there is no such class, no such image of it, or negatives alone would be left.
        """
        with self._changing:
            self._replace(self._supports.without(name, digest))

    def clear(self) -> None:
        """Removes all supports."""
        with self._changing:
            self._replace(SupportSet(value_range=self._fixed_range))

    def _replace(self, supports: SupportSet) -> None:
        self._supports, self._session = supports, None

    def session(self) -> Session:
        """Returns the support set with its encoded state; raises a ValueError without supports."""
        with self._changing:
            if not self._supports.classes:
                raise ValueError("there is no support: add a class with an annotated image first (add_class)")
            if self._session is None:
                self._session = Session(self.model, self._supports)
            return self._session

    @overload
    def segment(self, image: AnyImage, *, quality: bool = True) -> Segmentation: ...

    @overload
    def segment(
        self, image: list[Any] | tuple[Any, ...], *, quality: bool = True, batch: int | None = None
    ) -> list[Segmentation | DataError]: ...

    def segment(
        self,
        image: AnyImage | list[Any] | tuple[Any, ...],
        *,
        quality: bool = True,
        batch: int | None = None,
    ) -> Segmentation | list[Segmentation | DataError]:
        """Segments an image, or a list of images.

        Args:
            image: an image in any form and of any size, or a list or tuple of images.
            quality: also estimate how far the result can be trusted, with further passes of the head.
            batch: images of a list that go through the network together; by default 1 on a CPU and 8 on a
                GPU.

        Returns:
            The segmentation; for a list, a result for each image, in order: the segmentation, or the error of
            an image that cannot be used.

        Raises:
            ValueError: there is no support, the batch is below 1, or, for a single image, as :meth:`encode`.
        """
        session = self.session()
        self.learn_range(image if isinstance(image, (list, tuple)) else [image])
        if not isinstance(image, (list, tuple)):
            return session.segment(self.encode(image), quality=quality)
        if batch is None:
            batch = 1 if self.model.device.type == "cpu" else 8
        if batch < 1:
            raise ValueError(f"batch must be 1 or more, got {batch}")
        results: dict[int, Segmentation | DataError] = {}

        def read(k: int) -> PreparedImage | EncodedImage:
            item = image[k]
            known = isinstance(item, (PreparedImage, EncodedImage))
            return item if known else self.prepare(item, f"image {k}")

        def compute(ready: list[tuple[int, PreparedImage | EncodedImage]]) -> list[Segmentation]:
            return session.segment_all(self.encode_all([item for _, item in ready]), quality=quality)

        def failed(k: int, error: Exception) -> None:
            results[k] = error if isinstance(error, DataError) else DataError(f"image {k}: {NO_MEMORY}")

        steps = stream(
            range(len(image)),
            read,
            compute,
            results.__setitem__,
            failed,
            workers=2,
            ahead=4 + batch,
            batch=batch,
        )
        for _ in steps:
            pass
        return [results[k] for k in range(len(image))]

    def save_supports(self, path: str | Path) -> None:
        """Writes the encoded support set as safetensors with a JSON header.

        Raises a ValueError without supports, and an OSError if the file cannot be written.
        """
        save_supports(Path(path), self.session().supports, self.model)

    def load_supports(self, path: str | Path) -> None:
        """Replaces the support set by a saved one; no image goes through the backbone.

        Raises:
            DataError: the file is missing, broken or no support set, or was encoded by a different model or
                with a different value range than the segmenter's own.
        """
        loaded = load_supports(Path(path), self.model)
        if self._fixed_range not in (None, loaded.value_range):
            raise DataError(
                f"{path} was encoded with the value range {loaded.value_range}, and {self._fixed_range} is "
                "given: leave it out, or encode the supports again"
            )
        with self._changing:
            self._replace(loaded)


_SEEN = 50  # images that a range of values is taken from


def evenly(images: Sequence[T]) -> Sequence[T]:
    """The evenly spaced images that a range of values is taken from."""
    return images[:: max(1, -(-len(images) // _SEEN))]


_NAMED = 10  # classes, in a warning
_SUPPORT_BYTES = 4 * 2**30
"""Most bytes of features of annotated images that are kept."""


def _most_supports(model: Model, images: Sequence[AnnotatedImage]) -> int:
    """How many annotated images fit into the memory, by the size of the largest one."""
    size = max((image.size for image in images), key=lambda size: size[0] * size[1])
    views = len(model.views.windows(size, model.size))
    if views * len(images) <= MOST_IMAGES:
        return len(images)
    (one,) = model.encode([model.prepare(torch.zeros(3, model.size, model.size, dtype=torch.uint8))])
    return max(1, len(one.windows) * _SUPPORT_BYTES // (views * one.nbytes))


def _shows(image: AnnotatedImage, name: str) -> bool:
    """Whether a class is marked on an image; a mask may be empty."""
    return name in image.masks and bool((image.masks[name] == 1).any())


def _warn_of_unseen(path: Path, images: Sequence[AnnotatedImage], classes: Sequence[str]) -> None:
    """Warns of classes that an annotation file lists and no image has."""
    unseen = list(dict.fromkeys(name for image in images for name in image.listed if name not in classes))
    if unseen:
        more = f" and {len(unseen) - _NAMED} more" if len(unseen) > _NAMED else ""
        text = "%s lists classes that no image shows: %s%s; the others are numbered in the order of the list"
        logger.warning(text, path, ", ".join(unseen[:_NAMED]), more)


def segmenter_with_supports(
    model: ModelOptions,
    support: Path,
    read: ReadOptions,
    convert: Callable[[Model], Model] | None = None,
    refit: Callable[[Segmenter, Sequence[AnnotatedImage]], Segmenter] | None = None,
) -> Segmenter:
    """A segmenter with annotated images, which are read before the model, or with a saved support set.

    ``convert`` changes the model, and ``refit`` the segmenter of annotated images whose model chooses and
    whose input is not given.
    """
    is_saved = support.suffix == ".safetensors"
    images = [] if is_saved else read_supports(support, read)
    if not is_saved and not any(image.masks for image in images):
        raise DataError(
            f"{support}: no class is marked on any of its {len(images)} images: annotate at least one"
        )
    if is_saved:
        model = options_of_supports(support, model)
    loaded = load_model(model)
    if images:
        fitting = _most_supports(loaded, images)
        most = min(MOST_IMAGES, fitting) if loaded.chooses else fitting
        classes = list(dict.fromkeys(name for image in images for name in image.masks))
        _warn_of_unseen(support, images, classes)
        taken = sampled(images, classes, _shows, most)
        if len(taken) < len(images):
            full = most == fitting
            why = "the features of all would fill the memory" if full else "name a recipe to use more"
            text = "%d of the %d annotated images are taken, evenly spaced: %s"
            logger.warning(text, len(taken), len(images), why)
        images = taken
    ready = loaded if convert is None else convert(loaded)
    segmenter = Segmenter(ready, max_pixels=read.max_pixels, value_range=read.value_range)
    if is_saved:
        segmenter.load_supports(support)
    else:
        segmenter.add_annotated(images)
        if refit is not None and loaded.chooses and model.size is None and model.tiles is None:
            segmenter = refit(segmenter, images)
    return segmenter
