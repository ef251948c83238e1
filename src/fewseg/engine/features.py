"""The feature store: maps of a frozen backbone on disk, in a budget, shared by processes, with checksums."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fewseg.backbones.weights import state_sha256
from fewseg.data.draws import Draws
from fewseg.data.source import Source
from fewseg.data.transforms import VIEWS_VERSION, EvalView, TrainView
from fewseg.methods.base import FewShotSegmenter
from fewseg.ops.files import atomic_write_bytes, cache_folder, lock
from fewseg.ops.memory import give_back
from fewseg.ops.progress import progress_bar
from fewseg.types import Features

logger = logging.getLogger(__name__)

ROWS_VERSION = 3
"""Version of a row's file; a part of a store's key."""

View = EvalView | TrainView
_GPU_BATCH = 8
_LABELS, _CRC = "labels", "crc32"
_USED, _CLAIMS, _REMOVED = "used", "claims", ".removed-"
_BLOCK = 4096
_RECOUNT = 128
"""Rows that a process writes before it counts the bytes of all stores again: others write too."""


def disk_budget() -> int:
    """Bytes that all stores of a folder may take: ``$FEWSEG_CACHE_BYTES``, or 200 GiB."""
    text = os.environ.get("FEWSEG_CACHE_BYTES", str(200 << 30))
    if not text.isdecimal():
        raise ValueError(f"FEWSEG_CACHE_BYTES is {text!r}: give a number of bytes, such as 50000000000")
    return int(text)


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """One process at a time makes or removes stores below ``place``; it exists after."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("ab") as file:
        lock(file.fileno())
        yield


def make_room(place: Path, wanted: int, budget: int) -> int:
    """Removes stores that nobody uses, the longest unused first, until ``wanted`` bytes fit the budget.

    A store is first renamed and then removed, so that a kill leaves nothing that looks like a store; what an
    earlier kill left goes too. Returns the bytes that the stores may still grow by, below 0 over the budget.
    """
    with _locked(place):
        for leftover in place.glob(f"{_REMOVED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        sizes = {used.parent: _bytes(used.parent) for used in place.glob(f"*/{_USED}")}
        last_use = {store: (store / _USED).stat().st_mtime for store in sizes}
        for store in sorted(sizes, key=lambda s: (not s.name.startswith("temporary-"), last_use[s])):
            over = sum(sizes.values()) + wanted > budget
            if (over or store.name.startswith("temporary-")) and _unused(store):
                if sizes[store]:
                    logger.info("removing the feature store %s (%d MiB)", store, sizes[store] >> 20)
                removed = store.with_name(f"{_REMOVED}{store.name}")
                os.replace(store, removed)
                shutil.rmtree(removed, ignore_errors=True)
                sizes.pop(store)
        return budget - sum(sizes.values())


def _unused(store: Path) -> bool:
    try:
        with (store / _USED).open("ab") as file:
            return lock(file.fileno(), wait=False)
    except OSError:
        return False


def _bytes(store: Path) -> int:
    """Bytes on the disk; of a store that is removed meanwhile, those that were counted."""
    total = 0
    with suppress(FileNotFoundError):
        for path in os.scandir(store):
            with suppress(FileNotFoundError):  # a temporary file that got its name
                total += _blocks(path.stat().st_size)
    return total


def _blocks(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


class Network(Protocol):
    """What gives features: a backbone, or an ``Extractor``; its weights decide its digest."""

    def __call__(self, images: Tensor) -> Features:
        """Features of (n, 3, H, W) RGB in [0, 1]."""
        ...

    def digest(self) -> str:
        """Hexadecimal key of everything that decides the features."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Its parameters, one at least: they have its device and type."""
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
    """Maps and labels of fixed views of a source's images, one safetensors file a row.

    A row is one view of one image. Rows are computed on demand, once for all methods, folds and runs that
    share backbone weights, source and views. A file is complete or absent, whatever is killed; several
    processes may fill one store; a file whose bytes changed is made again. All stores of a folder share a
    budget of bytes: those used longest ago make room. Rows that still do not fit, or that the disk has no
    space for, stay in memory, with a warning, as do all where the folder cannot be written.
    """

    def __init__(
        self,
        # in eval mode, on the device and in the type it should run in; its weights, whose digest is in the
        # key, must not change while the store is in use
        backbone: Network,
        source: Source,
        views: Sequence[View],  # all of one size; ``TrainView`` draws from (seed, image, view)
        *,
        folder: Path | None = None,  # where stores live; ``$FEWSEG_CACHE/features`` by default
        seed: int = 0,  # of the random views
        dtype: torch.dtype = torch.bfloat16,  # on disk and in memory, bfloat16 or float32
        temporary: bool = False,  # live in a folder of its own, which goes with the object
        # images that the backbone takes at once; 1 by default, where rows are the same whoever makes them,
        # and 8 on a GPU
        batch: int | None = None,
    ) -> None:
        sizes = {view.size for view in views}
        if len(sizes) != 1:
            raise ValueError(f"the views of one store must have one size, got {sorted(sizes)}")
        self.backbone, self.source, self.views = backbone, source, tuple(views)
        self.size, self.seed, self.dtype = sizes.pop(), seed, dtype
        on_gpu = next(backbone.parameters()).device.type == "cuda"
        self.batch = batch or (_GPU_BATCH if on_gpu and self.size else 1)  # images of any size go alone
        self._rows = {id: i * len(self.views) for i, id in enumerate(source.ids)}
        views_key = [repr(view) for view in self.views]
        key = [ROWS_VERSION, VIEWS_VERSION, backbone.digest(), source.digest(), views_key, seed, str(dtype)]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
        self._place = folder or cache_folder() / "features"
        self.folder = self._place / (f"temporary-{secrets.token_hex(6)}" if temporary else name)
        self._memory: dict[int, dict[str, Tensor]] = {}
        self._checked: set[int] = set()
        self._room, self._warned = 0, False
        self._used = self._use()
        if temporary:
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def _use(self) -> IO[bytes] | None:
        """The open file that keeps others from removing the store; None where the folder is of no use."""
        try:
            with _locked(self._place):
                self.folder.mkdir(parents=True, exist_ok=True)
                (self.folder / _CLAIMS).touch()
                used = (self.folder / _USED).open("ab")
                lock(used.fileno(), shared=True)
                os.utime(self.folder / _USED)
                return used
        except OSError as error:
            self._warn_of(error)
            return None

    def _warn_of(self, error: OSError) -> None:
        self._warn(
            f"the feature cache {self.folder} cannot be written ({error}). Free some space or set "
            "FEWSEG_CACHE to a folder that can be written"
        )

    def _warn(self, why: str) -> None:
        if not self._warned:
            logger.warning("features stay in memory and are made again next time: %s", why)
        self._warned = True

    def ensure(
        self, ids: Sequence[str], views: Sequence[int] | None = None, *, progress: bool = True
    ) -> None:
        """Computes the missing rows of images, of all views by default; processes share the work."""
        chosen = range(len(self.views)) if views is None else views
        if self._used is not None:
            with suppress(OSError):  # of a disk that turned read-only, or a folder that is gone
                os.utime(self.folder / _USED)
        todo = self._missing([(id, v) for id in ids for v in chosen])
        if not todo:
            return
        self._room = 0
        with progress_bar(progress) as bar:
            task = bar.add_task(f"features of {self.source.name}", total=len(todo))
            for wait in (False, True):  # first what nobody else is making, then what nobody has made
                for start in range(0, len(todo), self.batch):
                    batch = todo[start : start + self.batch]
                    with self._claimed([self._row(*row) for row in batch], wait=wait) as mine:
                        missing = self._missing([row for row in batch if self._row(*row) in mine])
                        self._compute(missing, left=len(todo) - start)
                    give_back()
                    bar.advance(task, len(missing))
                todo = self._missing(todo)

    @contextmanager
    def _claimed(self, rows: Sequence[int], *, wait: bool = False) -> Iterator[list[int]]:
        """Rows of ``rows`` that nobody else is making, for the length of the block.

        Claims are locks of single bytes of a file, so that a killed process holds none.
        """
        if self._used is None or not hasattr(os, "lockf"):  # Windows has none: one process at a time there
            yield list(rows)
            return
        try:
            file = (self.folder / _CLAIMS).open("r+b", buffering=0)
        except OSError as error:
            self._warn_of(error)
            yield list(rows)
            return
        with file:  # closing it gives all claims back
            mine = []
            for row in rows:
                file.seek(row)
                with suppress(BlockingIOError, PermissionError):  # another process has it
                    os.lockf(file.fileno(), os.F_LOCK if wait else os.F_TLOCK, 1)
                    mine.append(row)
            yield mine

    def _missing(self, rows: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        numbers = [self._row(*row) for row in rows]
        return [
            row
            for row, number in zip(rows, numbers, strict=True)
            if number not in self._memory and not (self._used and self._file(number).exists())
        ]

    def _row(self, id: str, view: int) -> int:
        return self._rows[id] + view

    def _file(self, row: int) -> Path:
        return self.folder / f"{row}.safetensors"

    def view(self, id: str, view: int) -> tuple[Tensor, Tensor]:
        """The pixels of a row: float (3, size, size) in [0, 1] and labels (size, size)."""
        image, labels = self.source.read_image(id), self.source.read_labels(id)
        transform = self.views[view]
        if isinstance(transform, EvalView):
            return transform(image, labels)
        return transform(image, labels, Draws("view", self.seed, id, view))

    def _compute(self, rows: Sequence[tuple[str, int]], *, left: int = 1) -> None:
        """Makes rows; so many are ``left`` to make, these among them."""
        if not rows:
            return
        pixels = [self.view(id, v) for id, v in rows]
        parameter = next(self.backbone.parameters())
        images = torch.stack([p[0] for p in pixels]).to(parameter.device, parameter.dtype)
        with torch.no_grad():
            maps = self.backbone(images.contiguous(memory_format=torch.channels_last)).maps
        cells = {k: m.to("cpu", self.dtype).permute(0, 2, 3, 1).contiguous() for k, m in maps.items()}
        for place, (row, (_, labels)) in enumerate(zip(rows, pixels, strict=True)):
            tensors = {level: values[place] for level, values in cells.items()}
            self._write(self._row(*row), {**tensors, _LABELS: labels.contiguous()}, left - place)

    def _write(self, row: int, tensors: Mapping[str, Tensor], left: int) -> None:
        """Writes a row; where the budget or the disk has no room for it, it stays in memory."""
        data = save(dict(tensors), {_CRC: str(_crc(tensors))})
        try:
            if self._used is not None and self._fits(_blocks(len(data)), left):
                atomic_write_bytes(self._file(row), data, durable=False)
                self._checked.add(row)
                return
        except OSError as error:
            self._warn_of(error)
        self._memory[row] = {name: tensor.clone() for name, tensor in tensors.items()}

    def _fits(self, size: int, left: int) -> bool:
        """Takes ``size`` bytes of the budget; other stores make room for the ``left`` rows."""
        if 0 <= self._room < size:
            room = make_room(self._place, size * left, disk_budget())
            self._room = min(room, _RECOUNT * size) if room >= size else -1  # -1: no room in this ensure()
        if self._room < 0:
            self._warn(
                f"FEWSEG_CACHE_BYTES, {disk_budget()}, leaves no room for them in {self._place}. Set it "
                "higher, or give FEWSEG_CACHE a folder on a larger disk and the budget that it can hold"
            )
            return False
        self._room -= size
        return True

    def features(self, ids: Sequence[str], view: int = 0) -> Features:
        """The maps of :meth:`rows`."""
        return self.rows(ids, view)[0]

    def labels(self, ids: Sequence[str], view: int = 0) -> Tensor:
        """The labels of :meth:`rows`."""
        return _joined([row[_LABELS] for row in self._read(ids, view)])

    def rows(self, ids: Sequence[str], view: int = 0) -> tuple[Features, Tensor]:
        """One view of images that ``ensure`` has seen.

        The maps of a single image are the file's own pages, mapped for as long as they are used: what is
        changed in them does not change the file, and the system can have their memory back.

        Returns:
            The maps, channels last, and the labels (n, size, size), uint8, or int32 where class ids exceed
            254.
        """
        rows = self._read(ids, view)
        maps = {
            level: _joined([row[level] for row in rows]).permute(0, 3, 1, 2)
            for level in rows[0]
            if level != _LABELS
        }
        labels = _joined([row[_LABELS] for row in rows])
        height, width = labels.shape[-2:]
        return Features(maps=maps, image_size=(int(height), int(width))), labels

    def _read(self, ids: Sequence[str], view: int) -> list[dict[str, Tensor]]:
        """Rows that exist; one that the disk has damaged is made again."""
        missing = self._missing([(id, view) for id in ids])
        if missing:
            names = [id for id, _ in missing]
            raise ValueError(f"features of {names[:3]} were not computed: call ensure() first")
        tensors = []
        for id in ids:
            row = self._row(id, view)
            try:
                tensors.append(self._load(row))
            except (OSError, SafetensorError, ValueError) as error:
                logger.warning("%s is damaged (%s): it is made again", self._file(row), error)
                self._file(row).unlink(missing_ok=True)
                self.ensure([id], [view], progress=False)
                tensors.append(self._load(row))
        return tensors

    def _load(self, row: int) -> dict[str, Tensor]:
        """A row; its bytes are checked once by each object."""
        if row in self._memory:
            return self._memory[row]
        with safe_open(self._file(row), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            stored = (file.metadata() or {}).get(_CRC)
        if row not in self._checked and stored != str(_crc(tensors)):
            raise ValueError("its checksum is wrong")
        self._checked.add(row)
        return tensors


def _crc(tensors: Mapping[str, Tensor]) -> int:
    """The CRC-32 of the tensors' bytes, by name."""
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].view(torch.uint8).numpy().data, crc)
    return crc


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """(n, ...) of n tensors; a single one is not copied."""
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(list(tensors))
