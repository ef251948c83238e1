"""Backbone maps on disk: every view of every image goes through the frozen backbone once."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fewseg.backbones.weights import state_sha256
from fewseg.data.draws import Draws
from fewseg.data.source import Source
from fewseg.data.storage import cache_folder
from fewseg.data.transforms import VIEWS_VERSION, EvalView, TrainView
from fewseg.methods.base import FewShotSegmenter
from fewseg.ops.files import atomic_write_text
from fewseg.ops.progress import progress_bar
from fewseg.types import Features

try:
    import fcntl
except ImportError:  # Windows has no such lock: one process at a time there
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

View = EvalView | TrainView
Array = np.memmap[Any, np.dtype[Any]]
_BATCH = 8
_DONE = "done.raw"


class Network(Protocol):
    """What gives features: a backbone, or an ``Extractor``; its weights decide its digest."""

    def __call__(self, images: Tensor) -> Features:
        """Features of (n, 3, H, W) RGB in [0, 1]."""
        ...

    def digest(self) -> str:
        """Hexadecimal key of everything that decides the features."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Its parameters, one at least: they tell device and type."""
        ...


class Extractor(torch.nn.Module):
    """A method's ``extract`` as a network of its own, for methods that train their backbone."""

    def __init__(self, method: FewShotSegmenter) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: Tensor) -> Features:
        """The features of ``extract``."""
        return self.method.extract(images)

    def digest(self) -> str:
        """Key of the backbone's settings, of the method's config and of all weights."""
        config: Any = getattr(self.method, "config", None)
        known = [f.name for f in fields(config)] if is_dataclass(config) else []
        parts = [
            self.method.backbone.digest(),  # without the path of its weights
            type(self.method).__name__,
            repr([(name, getattr(config, name)) for name in known if name != "backbone"]),
            state_sha256(self.method.state_dict()),
        ]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()


class FeatureStore:
    """Maps and labels of fixed views of a source's images, in memory-mapped files.

    A row is one view of one image. Rows are computed on demand, once for all methods, folds and runs that
    share backbone weights, source and views; a killed run leaves complete rows behind, and two processes
    take turns by a file lock.

    Args:
        backbone: the trunk, or an ``Extractor``, in eval mode, on the device and in the type it should run
            in; its weights must not change while the store is in use (the key holds their digest).
        source: the images.
        views: the views of each image, all of one size. ``TrainView`` draws from (seed, image, view).
        folder: where stores live; ``$FEWSEG_CACHE/features`` by default.
        seed: of the random views.
        dtype: type on disk and in memory, bfloat16 or float32.
        temporary: live in a folder of its own, which goes with the object.
    """

    def __init__(
        self,
        backbone: Network,
        source: Source,
        views: Sequence[View],
        *,
        folder: Path | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.bfloat16,
        temporary: bool = False,
    ) -> None:
        sizes = {view.size for view in views}
        if len(sizes) != 1:
            raise ValueError(f"the views of one store must have one size, got {sorted(sizes)}")
        self.backbone, self.source, self.views = backbone, source, tuple(views)
        self.size, self.seed, self.dtype = sizes.pop(), seed, dtype
        self._rows = {id: i * len(self.views) for i, id in enumerate(source.ids)}
        key = json.dumps(
            [
                VIEWS_VERSION,
                backbone.digest(),
                source.digest(),
                [repr(v) for v in self.views],
                seed,
                str(dtype),
            ]
        )
        name = hashlib.sha256(key.encode()).hexdigest()[:24]
        place = folder or cache_folder() / "features"
        if temporary:
            place.mkdir(parents=True, exist_ok=True)
            self._temporary = TemporaryDirectory(prefix="temporary-", dir=place)  # removed with this object
            place = Path(self._temporary.name)
        self.folder = place / name
        self.folder.mkdir(parents=True, exist_ok=True)
        rows = len(source.ids) * len(self.views)
        shapes = self._map_shapes()
        with self._lock():  # another process may be making the same files
            atomic_write_text(self.folder / "key.json", key)
            self._maps: Mapping[str, Array] = {
                level: self._open(f"{level}.raw", (rows, *shape), _storage(dtype))
                for level, shape in shapes.items()
            }
            self._labels = self._open("labels.raw", (rows, self.size, self.size), np.dtype(np.uint8))
            self._done = self._open(_DONE, (rows,), np.dtype(np.uint8))

    def _map_shapes(self) -> dict[str, tuple[int, int, int]]:
        parameter = next(self.backbone.parameters())
        probe = torch.zeros(1, 3, self.size, self.size, device=parameter.device, dtype=parameter.dtype)
        with torch.no_grad():
            maps = self.backbone(probe).maps
        return {level: (int(m.shape[2]), int(m.shape[3]), int(m.shape[1])) for level, m in maps.items()}

    def _open(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Maps a file for reading; one that is new or of a wrong size makes every row count as missing."""
        path = self.folder / name
        wanted = int(np.prod(shape)) * dtype.itemsize
        if not path.exists() or path.stat().st_size != wanted:
            (self.folder / _DONE).unlink(missing_ok=True)
            with path.open("wb") as file:
                file.truncate(wanted)
        return np.memmap(path, dtype=dtype, mode="r", shape=shape)

    def _write(self, name: str, rows: Sequence[int], values: npt.NDArray[Any]) -> None:
        """Writes rows by system calls: a full disk is then an error and not the end of the process.

        Raises:
            OSError: the disk is full; rows that were complete stay.
        """
        size = values[0].nbytes
        with (self.folder / name).open("r+b", buffering=0) as file:
            for row, value in zip(rows, values, strict=True):
                if os.pwrite(file.fileno(), value.tobytes(), row * size) != size:
                    raise OSError(
                        errno.ENOSPC,
                        f"the disk of the feature cache {self.folder} is full: free some space or set "
                        "FEWSEG_CACHE to a folder on another disk",
                    )

    def ensure(
        self, ids: Sequence[str], views: Sequence[int] | None = None, *, progress: bool = True
    ) -> None:
        """Computes the rows that are missing.

        Args:
            ids: images.
            views: indices of views; all by default.
            progress: show a bar with the time left.

        Raises:
            DataError: an image cannot be used.
        """
        chosen = range(len(self.views)) if views is None else views
        with self._lock():
            todo = [(id, v) for id in ids for v in chosen if not self._done[self._rows[id] + v]]
            if not todo:
                return
            with progress_bar(progress) as bar:
                task = bar.add_task(f"features of {self.source.name}", total=len(todo))
                for start in range(0, len(todo), _BATCH):
                    self._compute(todo[start : start + _BATCH])
                    bar.advance(task, len(todo[start : start + _BATCH]))

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def view(self, id: str, view: int) -> tuple[Tensor, Tensor]:
        """The pixels of a row: float (3, size, size) in [0, 1] and labels (size, size)."""
        image, labels = self.source.read_image(id), self.source.read_labels(id)
        transform = self.views[view]
        if isinstance(transform, EvalView):
            return transform(image, labels)
        return transform(image, labels, Draws("view", self.seed, id, view))

    def _compute(self, rows: Sequence[tuple[str, int]]) -> None:
        pixels = [self.view(id, v) for id, v in rows]
        parameter = next(self.backbone.parameters())
        images = torch.stack([p[0] for p in pixels]).to(parameter.device, parameter.dtype)
        with torch.no_grad():
            maps = self.backbone(images.contiguous(memory_format=torch.channels_last)).maps
        index = [self._rows[id] + v for id, v in rows]
        for level, values in maps.items():
            cells = values.to("cpu", self.dtype).permute(0, 2, 3, 1).contiguous()
            self._write(f"{level}.raw", index, cells.view(_as_stored(self.dtype)).numpy())
        self._write("labels.raw", index, torch.stack([p[1] for p in pixels]).numpy())
        self._write(_DONE, index, np.ones((len(index), 1), np.uint8))

    def features(self, ids: Sequence[str], view: int = 0) -> Features:
        """The maps of one view of images that ``ensure`` has seen, channels last."""
        index = self._index(ids, view)
        maps = {}
        for level, stored in self._maps.items():
            cells = torch.from_numpy(np.stack([stored[i] for i in index])).view(self.dtype)
            maps[level] = cells.permute(0, 3, 1, 2)
        return Features(maps=maps, image_size=(self.size, self.size))

    def labels(self, ids: Sequence[str], view: int = 0) -> Tensor:
        """The labels of the same rows: uint8 (n, size, size)."""
        return torch.from_numpy(np.stack([self._labels[i] for i in self._index(ids, view)]))

    def _index(self, ids: Sequence[str], view: int) -> list[int]:
        index = [self._rows[id] + view for id in ids]
        missing = [id for id, i in zip(ids, index, strict=True) if not self._done[i]]
        if missing:
            raise ValueError(f"features of {missing[:3]} were not computed: call ensure() first")
        return index


def _storage(dtype: torch.dtype) -> np.dtype[Any]:
    return np.dtype(np.int16) if dtype == torch.bfloat16 else np.dtype(np.float32)


def _as_stored(dtype: torch.dtype) -> torch.dtype:
    return torch.int16 if dtype == torch.bfloat16 else torch.float32
