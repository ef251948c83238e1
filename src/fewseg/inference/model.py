"""A method with its input size: pixels in, features and margins out. It holds no support set."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fewseg.backbones.weights import state_sha256
from fewseg.engine.evaluate import Precision
from fewseg.engine.result_schema import as_json
from fewseg.engine.result_schema import digest as json_digest
from fewseg.inference.views import Views, Whole, Window, view_images
from fewseg.methods.base import FewShotSegmenter
from fewseg.methods.prototypical import PrototypeSegmenter
from fewseg.methods.registry import MethodConfig, method_name
from fewseg.ops.memory_errors import as_memory_error
from fewseg.types import EncodedShots, Features, State

Extract = Callable[[Tensor], Features]
"""(n, 3, S, S) float32 RGB in [0, 1] to the maps of the n views."""

_BATCH = 8  # views that go through the network together


@dataclass(frozen=True, kw_only=True)
class PreparedImage:
    """An image cut into views, before the network.

    Attributes:
        views: (n, 3, S, S) float32 in [0, 1].
        windows: where they lie.
        size: (H, W) of the image as a viewer shows it.
        digest: of the views' values.
    """

    views: Tensor
    windows: tuple[Window, ...]
    size: tuple[int, int]
    digest: str


@dataclass(frozen=True, kw_only=True)
class EncodedImage:
    """An image that has been through the backbone; it can stand wherever an image can.

    Attributes:
        features: of its n views.
        windows: where they lie.
        size: (H, W) of the image as a viewer shows it.
        digest: tells equal images.
        model: digest of the model that encoded it.
    """

    features: Features
    windows: tuple[Window, ...]
    size: tuple[int, int]
    digest: str
    model: str

    @property
    def nbytes(self) -> int:
        """Bytes of its features."""
        return sum(m.numel() * m.element_size() for m in self.features.maps.values())


class Model:
    """A method that is ready to be used, by any number of threads.

    Args:
        method: in eval mode, on its device.
        config: the config it was built from.
        size: side S of its square input, pixels.
        views: how images become such squares.
        name: what messages call it.
        extract: what runs the backbone in place of the method itself, giving the same maps.
        precision: "bf16" for autocast: on CPUs with bfloat16 instructions up to twice as fast; on real
            photographs one to four pixels of a thousand get another label.

    Raises:
        ValueError: the size is below 33 pixels, or the precision is unknown.
    """

    def __init__(
        self,
        method: FewShotSegmenter,
        config: MethodConfig,
        size: int,
        views: Views | None = None,
        name: str = "",
        extract: Extract | None = None,
        precision: Precision = "fp32",
    ) -> None:
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"the precision is {precision!r}; accepted are 'fp32' and 'bf16'")
        if size < 33:
            raise ValueError(
                f"the input size is {size} pixels; accepted are 33 and more, best of the form 8k + 1"
            )
        self.method, self.config, self.size, self.views = method, config, size, views or Whole()
        self.name = name or method_name(config)
        self.extract, self.precision = extract or method.extract, precision
        self._digesting = threading.Lock()

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.method.parameters()).device

    @property
    def takes_negatives(self) -> bool:
        """Whether images without the thing can be part of a support set; else they set presence alone."""
        return isinstance(self.method, PrototypeSegmenter)

    @property
    def digest(self) -> str:
        """Key of everything that decides features and states: weights, config, fusion, input size, views."""
        with self._digesting:
            return self._digest

    @cached_property
    def _digest(self) -> str:
        parts = as_json(self.config)
        parts.get("backbone", {}).pop("weights", None)  # the values count, not where they lie
        if self.precision != "fp32":
            parts["precision"] = self.precision
        parts["fusion in use"] = as_json(self.method.fusion)
        values = state_sha256(self.method.state_dict())
        key = json_digest([parts, self.size, as_json(self.views), values])
        return hashlib.sha256(key.encode()).hexdigest()[:16]

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Without gradients, in the model's precision."""
        low = self.precision == "bf16"
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            yield

    def prepare(self, pixels: Tensor) -> PreparedImage:
        """Cuts an image (3, H, W) uint8 RGB into views; no network yet."""
        size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
        windows = self.views.windows(size, self.size)
        views = view_images(pixels, windows)
        key = hashlib.blake2b(views.numpy().tobytes(), digest_size=16)
        key.update(repr(size).encode())
        return PreparedImage(views=views, windows=windows, size=size, digest=key.hexdigest())

    def encode(self, images: Sequence[PreparedImage]) -> list[EncodedImage]:
        """Runs images through the network, their views together, each once.

        Raises:
            MemoryError: there is not enough for these views.
        """
        views = torch.cat([image.views for image in images])
        found: list[EncodedImage] = []
        with self._computing(), as_memory_error():
            parts = [self.extract(part.to(self.device)) for part in views.split(_BATCH)]
            features = Features.stack(parts) if len(parts) > 1 else parts[0]
            start = 0
            for image in images:
                stop = start + len(image.windows)
                alone = features if len(images) == 1 else features.select(slice(start, stop))
                found.append(
                    EncodedImage(
                        features=alone,
                        windows=image.windows,
                        size=image.size,
                        digest=image.digest,
                        model=self.digest,
                    )
                )
                start = stop
        return found

    def state(self, support: EncodedShots) -> State:
        """Encodes a support set of any N and K."""
        with self._computing():
            state: State = self.method.encode_support(support)
            return state

    def margins(self, features: Features, state: State) -> Tensor:
        """How much each way's logit is above the background's: (n, N, S, S) float32."""
        found = []
        with self._computing():
            for start in range(0, len(features), _BATCH):
                part = features if len(features) <= _BATCH else features.select(slice(start, start + _BATCH))
                logits: Tensor = self.method.segment(part, state)
                found.append(logits[:, 1:].float() - logits[:, :1].float())
        return torch.cat(found) if len(found) > 1 else found[0]
