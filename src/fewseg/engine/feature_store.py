"""Backbone maps on disk: every view of every image goes through the frozen backbone once."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fewseg.backbones.weights import state_sha256
from fewseg.data.draws import Draws
from fewseg.data.source import Source
from fewseg.data.storage import cache_folder
from fewseg.data.transforms import VIEWS_VERSION, EvalView, TrainView
from fewseg.engine.memory_rows import MemoryRows, Values
from fewseg.engine.row_files import ROWS_VERSION, Column, RowFiles
from fewseg.engine.store_budget import InUse, disk_budget, locked, make_room, room, use
from fewseg.methods.base import FewShotSegmenter
from fewseg.ops.heap import give_back
from fewseg.ops.progress import progress_bar
from fewseg.types import IGNORE, Features

View = EvalView | TrainView
_GPU_BATCH = 8
_LABELS = "labels"
_BLOCKS = 48 << 10
"""Bytes that the files of a store may grow by beyond those of a row: they grow by whole blocks."""


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
    share backbone weights, source and views; see ``RowFiles`` for what a kill, several processes, a full or a
    failing disk do. All stores of a folder share a budget of bytes: those used longest ago make room. Rows
    that still do not fit stay in memory, with a warning, as do all where the folder cannot be written.

    Args:
        backbone: the trunk, or an ``Extractor``, in eval mode, on the device and in the type it should run
            in; its weights must not change while the store is in use (the key holds their digest).
        source: the images.
        views: the views of each image, all of one size. ``TrainView`` draws from (seed, image, view).
        folder: where stores live; ``$FEWSEG_CACHE/features`` by default.
        seed: of the random views.
        dtype: type on disk and in memory, bfloat16 or float32.
        temporary: live in a folder of its own, which goes with the object.
        batch: images that the backbone takes at once; 1 by default, where rows are the same whoever makes
            them, and 8 on a GPU.
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
        batch: int | None = None,
    ) -> None:
        sizes = {view.size for view in views}
        if len(sizes) != 1:
            raise ValueError(f"the views of one store must have one size, got {sorted(sizes)}")
        self.backbone, self.source, self.views = backbone, source, tuple(views)
        self.size, self.seed, self.dtype = sizes.pop(), seed, dtype
        on_gpu = next(backbone.parameters()).device.type == "cuda"
        self.batch = batch or (_GPU_BATCH if on_gpu else 1)
        self._rows = {id: i * len(self.views) for i, id in enumerate(source.ids)}
        key = json.dumps(
            [
                ROWS_VERSION,
                VIEWS_VERSION,
                backbone.digest(),
                source.digest(),
                [repr(v) for v in self.views],
                seed,
                str(dtype),
            ]
        )
        name = hashlib.sha256(key.encode()).hexdigest()[:24]
        self._place = folder or cache_folder() / "features"
        self.folder = self._place / (f"temporary-{secrets.token_hex(6)}" if temporary else name)
        columns = self._columns()
        self._levels = tuple(level for level in columns if level != _LABELS)
        self._label_type, self._row_bytes = columns[_LABELS].dtype, sum(c.row_bytes for c in columns.values())
        self._memory = MemoryRows(tuple(columns))
        self._in_use: InUse | None
        self._files: RowFiles | MemoryRows
        self._in_use, self._files = self._opened(key, columns)
        if temporary:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def _opened(self, key: str, columns: dict[str, Column]) -> tuple[InUse | None, RowFiles | MemoryRows]:
        """The store's folder; memory alone where it cannot be written."""
        try:
            with locked(self._place):  # another process may be making the same files
                in_use = use(self.folder)
                rows = len(self.source.ids) * len(self.views)
                try:
                    return in_use, RowFiles(self.folder, key, columns, rows, self._memory)
                except OSError:
                    in_use.close()
                    raise
        except OSError as error:
            self._memory.warn(
                f"the feature cache {self.folder} cannot be used ({error}). Free some space or set "
                "FEWSEG_CACHE to a folder that can be written"
            )
            return None, self._memory

    def _columns(self) -> dict[str, Column]:
        """What a row holds: maps, channels last, and labels."""
        parameter = next(self.backbone.parameters())
        probe = torch.zeros(1, 3, self.size, self.size, device=parameter.device, dtype=parameter.dtype)
        with torch.no_grad():
            maps = self.backbone(probe).maps
        shapes = {level: (int(m.shape[2]), int(m.shape[3]), int(m.shape[1])) for level, m in maps.items()}
        columns = {level: Column(shape, _storage(self.dtype)) for level, shape in shapes.items()}
        wide = max(self.source.class_names, default=0) > IGNORE
        kind = np.dtype(np.uint16 if wide else np.uint8)
        return {**columns, _LABELS: Column((self.size, self.size), kind)}

    def ensure(
        self, ids: Sequence[str], views: Sequence[int] | None = None, *, progress: bool = True
    ) -> None:
        """Computes the rows that are missing; processes that do so at a time share the work.

        Args:
            ids: images.
            views: indices of views; all by default.
            progress: show a bar with the time left.

        Raises:
            DataError: an image cannot be used.
        """
        chosen = range(len(self.views)) if views is None else views
        if self._in_use is not None:
            self._in_use.touch()
        todo = self._missing([(id, v) for id in ids for v in chosen])
        if not todo:
            return
        if self._in_use is not None:
            make_room(self._place, len(todo) * self._row_bytes + _BLOCKS, disk_budget())
        with progress_bar(progress) as bar:
            task = bar.add_task(f"features of {self.source.name}", total=len(todo))
            for wait in (False, True):  # first what nobody else is making, then what nobody has made
                for start in range(0, len(todo), self.batch):
                    batch = todo[start : start + self.batch]
                    with self._files.claimed([self._row(*row) for row in batch], wait=wait) as mine:
                        made = self._missing([row for row in batch if self._row(*row) in mine])
                        self._compute(made)
                    give_back()
                    bar.advance(task, len(made))
                todo = self._missing(todo)

    def _missing(self, rows: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        return [row for row in rows if not self._files.has(self._row(*row))]

    def _row(self, id: str, view: int) -> int:
        return self._rows[id] + view

    def view(self, id: str, view: int) -> tuple[Tensor, Tensor]:
        """The pixels of a row: float (3, size, size) in [0, 1] and labels (size, size)."""
        image, labels = self.source.read_image(id), self.source.read_labels(id)
        transform = self.views[view]
        if isinstance(transform, EvalView):
            return transform(image, labels)
        return transform(image, labels, Draws("view", self.seed, id, view))

    def _compute(self, rows: Sequence[tuple[str, int]]) -> None:
        if not rows:
            return
        pixels = [self.view(id, v) for id, v in rows]
        parameter = next(self.backbone.parameters())
        images = torch.stack([p[0] for p in pixels]).to(parameter.device, parameter.dtype)
        with torch.no_grad():
            maps = self.backbone(images.contiguous(memory_format=torch.channels_last)).maps
        cells = {level: self._stored(values) for level, values in maps.items()}
        files = self._files if self._fits(len(rows)) else self._memory
        for place, (row, (_, labels)) in enumerate(zip(rows, pixels, strict=True)):
            columns = {level: values[place] for level, values in cells.items()}
            columns[_LABELS] = labels.numpy().astype(self._label_type, copy=False)
            files.write(self._row(*row), columns)

    def _fits(self, rows: int) -> bool:
        """Whether the disk budget has room for so many more rows; a warning where it has not."""
        if self._in_use is None:
            return False
        wanted, budget = rows * self._row_bytes + _BLOCKS, disk_budget()
        fits = room(self._place, budget) >= wanted
        if not fits:
            self._memory.warn(
                f"FEWSEG_CACHE_BYTES, {budget}, leaves no room for them in {self._place}. Set it higher, or "
                "give FEWSEG_CACHE a folder on a larger disk and the budget that it can hold"
            )
        return fits

    def _stored(self, maps: Tensor) -> Values:
        """Maps as they lie on the disk: channels last, bfloat16 as int16."""
        cells = maps.to("cpu", self.dtype).permute(0, 2, 3, 1).contiguous()
        return cells.view(torch.int16 if self.dtype == torch.bfloat16 else torch.float32).numpy()

    def features(self, ids: Sequence[str], view: int = 0) -> Features:
        """The maps of one view of images that ``ensure`` has seen, channels last."""
        rows = self._there(ids, view)
        maps = {}
        for level in self._levels:
            cells = torch.from_numpy(self._files.read(level, rows)).view(self.dtype)
            maps[level] = cells.permute(0, 3, 1, 2)
        return Features(maps=maps, image_size=(self.size, self.size))

    def labels(self, ids: Sequence[str], view: int = 0) -> Tensor:
        """The labels of the same rows: (n, size, size), uint8, or int32 where class ids exceed 254."""
        labels = self._files.read(_LABELS, self._there(ids, view))
        return torch.from_numpy(labels if labels.dtype == np.uint8 else labels.astype(np.int32))

    def _there(self, ids: Sequence[str], view: int) -> list[int]:
        """Rows of images that are there; one that the disk has damaged is made again."""
        missing = self._missing([(id, view) for id in ids])
        if missing:
            names = [id for id, _ in missing]
            raise ValueError(f"features of {names[:3]} were not computed: call ensure() first")
        damaged = [id for id in ids if not self._files.check(self._row(id, view))]
        if damaged:
            self.ensure(damaged, [view], progress=False)
        return [self._row(id, view) for id in ids]


def _storage(dtype: torch.dtype) -> np.dtype[Any]:
    return np.dtype(np.int16) if dtype == torch.bfloat16 else np.dtype(np.float32)
