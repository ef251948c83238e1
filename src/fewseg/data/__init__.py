"""Data sets, folds, episodes and protocols: values go source -> index -> sampler -> episode -> views.

A source reads images and label maps; its :class:`Index` knows which classes each image shows; a sampler draws
:class:`EpisodeSpec` values from an index by the rules of a :class:`Protocol`.
"""

from fewseg.data.coco import CocoSource, coco_source
from fewseg.data.episodes import EpisodeSampler, EpisodeSpec, RecordedEpisodes, TrainingSampler
from fewseg.data.folder import FolderSource, ListFileSource
from fewseg.data.folds import (
    ClassSplit,
    FoldData,
    coco_20i,
    coco_40_20_20,
    coco_to_voc,
    even_split,
    pascal_5i,
    voc_to_coco,
)
from fewseg.data.fss1000 import FSS1000Source, fss1000_parts, fss1000_split
from fewseg.data.index import Index, build_index
from fewseg.data.pascal import pascal_sources
from fewseg.data.protocols import PROTOCOLS, Protocol, named_protocol
from fewseg.data.source import Source
from fewseg.data.synthetic import SyntheticSource, synthetic_5i
from fewseg.data.transforms import EvalView, StretchedView, TrainView
from fewseg.types import DataError

__all__ = [
    "PROTOCOLS",
    "ClassSplit",
    "CocoSource",
    "DataError",
    "EpisodeSampler",
    "EpisodeSpec",
    "EvalView",
    "FSS1000Source",
    "FoldData",
    "FolderSource",
    "Index",
    "ListFileSource",
    "Protocol",
    "RecordedEpisodes",
    "Source",
    "StretchedView",
    "SyntheticSource",
    "TrainView",
    "TrainingSampler",
    "build_index",
    "coco_20i",
    "coco_40_20_20",
    "coco_source",
    "coco_to_voc",
    "even_split",
    "fss1000_parts",
    "fss1000_split",
    "named_protocol",
    "pascal_5i",
    "pascal_sources",
    "synthetic_5i",
    "voc_to_coco",
]
