"""Data sets, folds, episodes and protocols: values go source -> index -> sampler -> episode -> views.

A source reads images and label maps; its :class:`Index` knows which classes each image shows; a sampler draws
:class:`EpisodeSpec` values from an index by the rules of a :class:`Protocol`.
"""

from fewseg.data.coco import CocoSource, coco_source
from fewseg.data.draws import Draws
from fewseg.data.episodes import (
    Episodes,
    EpisodeSampler,
    EpisodeSpec,
    RecordedEpisodes,
    TrainingSampler,
    Way,
    read_manifest,
    record,
)
from fewseg.data.folder import FolderSource, ListFileSource
from fewseg.data.folds import (
    COCO_CLASSES,
    VOC_CLASSES,
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
from fewseg.data.index import ImageFacts, Index, build_index
from fewseg.data.pascal import pascal_sources, pascal_val
from fewseg.data.protocols import PROTOCOLS, Protocol, named_protocol
from fewseg.data.source import FileSource, ImagePair, JoinedSource, RelabelledSource, SizedSource, Source
from fewseg.data.synthetic import SyntheticSource, synthetic_5i
from fewseg.data.transforms import EvalView, StretchedView, TrainView, binary_mask, eval_view, way_labels

__all__ = [
    "COCO_CLASSES",
    "PROTOCOLS",
    "VOC_CLASSES",
    "ClassSplit",
    "CocoSource",
    "Draws",
    "EpisodeSampler",
    "EpisodeSpec",
    "Episodes",
    "EvalView",
    "FSS1000Source",
    "FileSource",
    "FoldData",
    "FolderSource",
    "ImageFacts",
    "ImagePair",
    "Index",
    "JoinedSource",
    "ListFileSource",
    "Protocol",
    "RecordedEpisodes",
    "RelabelledSource",
    "SizedSource",
    "Source",
    "StretchedView",
    "SyntheticSource",
    "TrainView",
    "TrainingSampler",
    "Way",
    "binary_mask",
    "build_index",
    "coco_20i",
    "coco_40_20_20",
    "coco_source",
    "coco_to_voc",
    "eval_view",
    "even_split",
    "fss1000_parts",
    "fss1000_split",
    "named_protocol",
    "pascal_5i",
    "pascal_sources",
    "pascal_val",
    "read_manifest",
    "record",
    "synthetic_5i",
    "voc_to_coco",
    "way_labels",
]
