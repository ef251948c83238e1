"""The feature store: maps of a frozen backbone on disk, in a budget, shared by processes, with checksums."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import mmap
import os
import secrets
import shutil
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fewseg.backbones.weights import state_sha256
from fewseg.data.draws import Draws
from fewseg.data.source import Source
from fewseg.data.transforms import VIEWS_VERSION, EvalView, TrainView
from fewseg.methods.base import FewShotSegmenter
from fewseg.ops.files import atomic_write_text, cache_folder, lock
from fewseg.ops.memory import give_back
from fewseg.ops.progress import progress_bar
from fewseg.types import IGNORE, Features

logger = logging.getLogger(__name__)

Values = npt.NDArray[Any]


class MemoryRows:
    """Rows that stay in memory and are gone with the process; stands wherever ``RowFiles`` stands."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._rows: dict[int, dict[str, Values]] = {}
        self._warned = False

    def warn(self, why: str) -> None:
        """Says once why rows stay in memory."""
        if not self._warned:
            logger.warning("features stay in memory and are made again next time: %s", why)
        self._warned = True

    def has(self, row: int) -> bool:
        """Whether a row is there."""
        return row in self._rows

    def cell(self, name: str, row: int) -> Values:
        """One column of one row that is there."""
        return self._rows[row][name]

    def read(self, name: str, rows: Sequence[int]) -> Values:
        """A copy of one column of rows that are there: (n, *shape)."""
        return np.stack([self._rows[row][name] for row in rows])

    def check(self, row: int) -> bool:
        """Whether a row that is there is as it was written: memory does not change by itself."""
        return row in self._rows

    def write(self, row: int, values: Mapping[str, Values]) -> None:
        """Keeps a copy of a row, every column of it."""
        self._rows[row] = {name: np.array(values[name]) for name in self.names}

    @contextmanager
    def claimed(self, rows: Sequence[int], *, wait: bool = False) -> Iterator[list[int]]:
        """All of ``rows``: no other process can make them for this one."""
        yield list(rows)


try:
    import fcntl
except ImportError:  # Windows has no such lock: one process at a time there
    fcntl = None  # type: ignore[assignment]


ROWS_VERSION = 2
"""Of how rows lie in files; a part of a store's key. 1: with sums that did not look at the order of bytes."""

_DONE, _SUMS, _KEY, _CLAIMS = "done.raw", "sums.raw", "key.json", "claims"


@dataclass(frozen=True)
class Column:
    """Shape and type of one row of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


class RowFiles:
    """Columns of ``rows`` rows, one memory-mapped file a column, filled in any order.

    A row counts as there when all its columns are written. A killed process leaves no half rows behind;
    several processes may fill one folder at a time; a row that the disk has no room for stays in this
    process's memory; a row whose bytes changed on the disk is found by its sum and counts as missing again.
    """

    def __init__(
        self, folder: Path, key: str, columns: Mapping[str, Column], rows: int, memory: MemoryRows
    ) -> None:
        self.folder, self.columns, self.rows = folder, dict(columns), rows
        self._memory = memory
        self._checked = np.zeros(rows, dtype=bool)
        files = {**self.columns, _DONE: Column((), np.dtype(np.uint8))}
        files[_SUMS] = Column((), np.dtype(np.uint64))
        if not self._fits(key, files):
            for name in [*files, _KEY]:  # another process may still read the old ones: new files, not emptied
                (folder / _file(name)).unlink(missing_ok=True)
        self._arrays = {name: self._open(name, column) for name, column in files.items()}
        (folder / _CLAIMS).touch()
        if not (folder / _KEY).exists():
            atomic_write_text(folder / _KEY, key)

    def _fits(self, key: str, files: Mapping[str, Column]) -> bool:
        """Whether the files in the folder are of this key and size."""
        known, paths = self.folder / _KEY, {name: self.folder / _file(name) for name in files}
        if not known.exists() and not any(path.exists() for path in paths.values()):
            return True
        wrong = [
            path.name
            for name, path in paths.items()
            if not path.exists() or path.stat().st_size != self.rows * files[name].row_bytes
        ]
        if not known.exists() or known.read_bytes() != key.encode():
            wrong.insert(0, _KEY)
        if wrong:
            logger.warning(
                "the feature cache %s is damaged or of something else (%s): it is made again",
                self.folder,
                ", ".join(wrong),
            )
        return not wrong

    def _open(self, name: str, column: Column) -> np.memmap[Any, np.dtype[Any]]:
        path, size = self.folder / _file(name), self.rows * column.row_bytes
        if not path.exists() or path.stat().st_size != size:
            with path.open("wb") as file:
                file.truncate(size)  # a sparse file: rows that are not there take no space
        return np.memmap(path, dtype=column.dtype, mode="r", shape=(self.rows, *column.shape))

    def has(self, row: int) -> bool:
        """Whether a row is there."""
        return self._memory.has(row) or bool(self._arrays[_DONE][row])

    def read(self, name: str, rows: Sequence[int]) -> Values:
        """One column of rows that are there: (n, *shape).

        What is changed in it does not change the file. A single row is the file's own pages, mapped for as
        long as it is used: nothing is copied, and it takes no memory that the system could not have back.
        """
        memory = self._memory
        if len(rows) == 1 and not memory.has(rows[0]):
            return self._mapped(name, rows[0])
        found = [memory.cell(name, r) if memory.has(r) else self._arrays[name][r] for r in rows]
        copy = np.stack(found)
        _release(self._arrays[name])
        return copy

    def _mapped(self, name: str, row: int) -> Values:
        column = self.columns[name]
        path, start = self.folder / _file(name), row * column.row_bytes
        return np.memmap(path, dtype=column.dtype, mode="c", offset=start, shape=(1, *column.shape))

    def check(self, row: int) -> bool:
        """Whether a row that is there has the bytes that were written; looked at once by each object.

        One that has not, or that has no sum, counts as missing from then on, with a warning.
        """
        if self._checked[row] or self._memory.has(row):
            return True
        found = self._sum({name: self._arrays[name][row] for name in self.columns})
        self._checked[row] = int(self._arrays[_SUMS][row]) == found
        if self._checked[row]:
            return True
        logger.warning("row %d of the feature cache %s is damaged: it is made again", row, self.folder)
        self._write(_DONE, row, np.zeros((), np.uint8))
        return False

    def write(self, row: int, values: Mapping[str, Values]) -> None:
        """Writes a row, every column of it; on a full disk it stays in memory, with a warning."""
        columns = {name: np.ascontiguousarray(values[name]) for name in self.columns}
        try:
            for name, value in columns.items():
                self._write(name, row, value)
            self._write(_SUMS, row, np.array(self._sum(columns), np.uint64))
            self._write(_DONE, row, np.ones((), np.uint8))
        except OSError as error:
            self._memory.warn(
                f"the disk of the feature cache {self.folder} is full ({error}). Free some space or set "
                "FEWSEG_CACHE to a folder on another disk"
            )
            self._memory.write(row, columns)
        self._checked[row] = True

    def _write(self, name: str, row: int, value: Values) -> None:
        """Writes by system calls: a full disk is then an error and not the end of the process."""
        with (self.folder / _file(name)).open("r+b", buffering=0) as file:
            if os.pwrite(file.fileno(), value.data, row * value.nbytes) != value.nbytes:
                raise OSError(errno.ENOSPC, "no space left")

    def _sum(self, columns: Mapping[str, Values]) -> int:
        """The CRC-32 of a row's bytes, column after column, and bit 32, so that 0 says that there is none."""
        crc = 0
        for name in self.columns:
            crc = zlib.crc32(np.ascontiguousarray(columns[name]).data, crc)
        return 1 << 32 | crc

    @contextmanager
    def claimed(self, rows: Sequence[int], *, wait: bool = False) -> Iterator[list[int]]:
        """Rows of ``rows`` that nobody else is making, for the length of the block.

        Claims are locks of single bytes of a file, so that a killed process holds none.
        """
        if fcntl is None:
            yield list(rows)
            return
        with (self.folder / _CLAIMS).open("a+b") as file:  # closing it gives all claims back
            mine = []
            for row in rows:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, row)
                    mine.append(row)
                except OSError as error:
                    if error.errno not in (errno.EACCES, errno.EAGAIN):
                        raise
            yield mine


def _release(mapped: np.memmap[Any, np.dtype[Any]]) -> None:
    """Takes read pages out of the process's memory; the operating system still has them where it can."""
    pages = getattr(mapped, "_mmap", None)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def _file(name: str) -> str:
    return name if name.endswith((".raw", ".json")) else f"{name}.raw"


_USED = "used"
_GONE = ".removed-"


def disk_budget() -> int:
    """Bytes that all stores of a folder may take: ``$FEWSEG_CACHE_BYTES``, or 200 GiB."""
    said = os.environ.get("FEWSEG_CACHE_BYTES", str(200 << 30))
    if not said.isdecimal():
        raise ValueError(f"FEWSEG_CACHE_BYTES is {said!r}: give a number of bytes, such as 50000000000")
    return int(said)


@dataclass
class InUse:
    """A store that this process uses: nobody removes it as long as the object lives.

    Attributes:
        folder: of the store.
    """

    folder: Path
    _file: IO[bytes] = field(repr=False)

    def touch(self) -> None:
        """Says that the store was used now."""
        os.utime(self.folder / _USED)

    def close(self) -> None:
        """Gives the store free."""
        self._file.close()


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """One process at a time makes or removes stores below ``place``; it exists after."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("ab") as file:
        lock(file.fileno())
        yield


def use(folder: Path) -> InUse:
    """Makes a store's folder where it is missing and says that it is used; call it under ``locked``."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / _USED).open("ab")
    lock(file.fileno(), shared=True)
    used = InUse(folder, file)
    used.touch()
    return used


def make_room(place: Path, wanted: int, budget: int) -> None:
    """Removes stores that nobody uses, the longest unused first, until ``wanted`` bytes fit the budget.

    A store is first renamed and then removed, so that a kill leaves nothing that looks like a store; what an
    earlier kill left, and stores of a run that was killed before it could remove them, go too.
    """
    with locked(place):
        for left in place.glob(f"{_GONE}*"):
            shutil.rmtree(left, ignore_errors=True)
        stores = [used.parent for used in place.glob(f"*/{_USED}")]
        taken = {store: _bytes(store) for store in stores}
        for store in sorted(stores, key=lambda s: (not s.name.startswith("temporary-"), _last_use(s))):
            over = sum(taken.values()) + wanted - budget
            if (over > 0 or store.name.startswith("temporary-")) and _free(store):
                if taken[store]:
                    logger.info("removing the feature store %s (%d MiB)", store, taken[store] >> 20)
                gone = store.with_name(f"{_GONE}{store.name}")
                os.replace(store, gone)
                shutil.rmtree(gone, ignore_errors=True)
                taken.pop(store)


def room(place: Path, budget: int) -> int:
    """Bytes that the stores of ``place`` may still grow by; below 0 where they are over the budget."""
    return budget - sum(_bytes(used.parent) for used in place.glob(f"*/{_USED}"))


def _free(store: Path) -> bool:
    """Whether nobody uses a store."""
    try:
        with (store / _USED).open("ab") as file:
            return lock(file.fileno(), wait=False)
    except OSError:
        return False


def _last_use(store: Path) -> float:
    return (store / _USED).stat().st_mtime


def _bytes(store: Path) -> int:
    """Bytes on the disk: files of stores are sparse. Of one that goes meanwhile: what is still there."""
    total = 0
    with suppress(FileNotFoundError):
        for path in store.iterdir():
            status = path.stat()
            total += int(getattr(status, "st_blocks", status.st_size / 512) * 512)
    return total


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
