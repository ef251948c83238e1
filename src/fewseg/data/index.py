"""Which classes each image shows and how many pixels of each: built once, in parallel, then cached."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fewseg.annotations.image_files import check_same_size
from fewseg.data.source import Source
from fewseg.ops.files import atomic_write_bytes, cache_folder, parse_json
from fewseg.ops.parallel import for_each
from fewseg.types import IGNORE

log = logging.getLogger(__name__)

_SCHEMA = "fewseg-index-1"


@dataclass(frozen=True)
class ImageFacts:
    """Size of one image in pixels, and class id -> pixels (background and 255 left out)."""

    height: int
    width: int
    areas: Mapping[int, int]


@dataclass(frozen=True)
class Index:
    """What is known of every image of a source without reading it: id -> facts, in the order of its list."""

    name: str
    class_names: Mapping[int, str]
    images: Mapping[str, ImageFacts]
    _memo: dict[tuple[int, int], tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def ids(self) -> tuple[str, ...]:
        """The images, in list order."""
        return tuple(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def __contains__(self, id: object) -> bool:
        return id in self.images

    def images_of(self, class_id: int, min_area: int = 1) -> tuple[str, ...]:
        """Returns the images where a class covers at least ``min_area`` pixels, sorted by id."""
        key = (class_id, min_area)
        if key not in self._memo:
            ids = (i for i, facts in self.images.items() if facts.areas.get(class_id, 0) >= min_area)
            self._memo[key] = tuple(sorted(ids))
        return self._memo[key]

    def classes_in(self, id: str, min_area: int = 1) -> tuple[int, ...]:
        """Returns the classes that cover at least ``min_area`` pixels of an image, ascending."""
        return tuple(sorted(c for c, n in self.images[id].areas.items() if n >= min_area))

    def images_with_any(self, classes: Iterable[int], min_area: int = 1) -> tuple[str, ...]:
        """Returns the images that show one of the classes, sorted by id."""
        return tuple(sorted({i for c in classes for i in self.images_of(c, min_area)}))

    def only(self, ids: Iterable[str]) -> Index:
        """Returns the index of these images, in the order given."""
        return Index(self.name, self.class_names, {i: self.images[i] for i in ids})

    def without(self, classes: Iterable[int], min_area: int = 1) -> Index:
        """Returns the index of the images that show none of the classes."""
        gone = set(self.images_with_any(classes, min_area))
        return self.only(i for i in self.images if i not in gone)

    def content_digest(self) -> str:
        """Returns 12 hex digits that depend on ids, sizes and areas, not on paths or file times."""
        rows = [(i, f.height, f.width, sorted(f.areas.items())) for i, f in sorted(self.images.items())]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]


def measure(source: Source, id: str) -> ImageFacts:
    """Reads one image and its labels and returns the facts of the index."""
    labels = source.read_labels(id)
    height, width = int(labels.shape[0]), int(labels.shape[1])
    check_same_size(f"{source.name}, image {id}", source.image_size(id), (height, width))
    counts = torch.bincount(labels.flatten())
    areas = {c: int(counts[c]) for c in counts.nonzero().flatten().tolist() if c not in (0, IGNORE)}
    return ImageFacts(height=height, width=width, areas=areas)


def build_index(
    source: Source, cache_dir: Path | str | None = None, workers: int | None = None, progress: bool = True
) -> Index:
    """Returns the index of a source, from the cache where its digest is known.

    Args:
        source: the images.
        cache_dir: where indices are kept; ``$FEWSEG_CACHE`` or ``~/.cache/fewseg`` by default.
        workers: reading threads; the CPUs, 16 at most, by default.
        progress: show a progress bar with the time left.

    Raises:
        DataError: images cannot be used; one error counts all of them.
    """
    folder = Path(cache_dir) if cache_dir is not None else cache_folder() / "index"
    path = folder / f"{source.digest()[:32]}.json"
    cached = _load(path, source)
    if cached is not None:
        return cached
    images = for_each(
        source.ids, lambda id: measure(source, id), f"indexing {source.name}", workers, progress
    )
    index = Index(name=source.name, class_names=dict(source.class_names), images=images)
    try:
        atomic_write_bytes(path, _dump(index))
    except OSError as error:
        log.warning("the index of %s is not cached: %s cannot be written (%s)", source.name, path, error)
    return index


def _dump(index: Index) -> bytes:
    rows = [
        [i, f.height, f.width, *(v for pair in f.areas.items() for v in pair)]
        for i, f in index.images.items()
    ]
    return json.dumps({"schema": _SCHEMA, "images": rows}, separators=(",", ":")).encode()


def _load(path: Path, source: Source) -> Index | None:
    """Returns the cached index, or None where none fits (it is then built again)."""
    if not path.exists():
        return None
    try:
        content = parse_json(path.read_bytes())
        if content["schema"] != _SCHEMA:
            return None
        images = {
            str(id): ImageFacts(height, width, dict(zip(flat[::2], flat[1::2], strict=True)))
            for id, height, width, *flat in content["images"]
        }
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        log.warning("the cached index %s cannot be read (%s): building it again", path, error)
        return None
    if tuple(images) != tuple(source.ids):
        return None
    return Index(name=source.name, class_names=dict(source.class_names), images=images)
