"""Two folds of a small rendered set, for runs of whole commands."""

from fewseg.data.folds import ClassSplit, FoldData
from fewseg.data.index import build_index
from fewseg.data.synthetic import SYNTHETIC_CLASSES, SyntheticSource

SIDE = 33


def tiny_folds(index_folder):
    """(fold, root) -> a fold of six classes; fold 0 tests classes 1 and 2, fold 1 tests 3 and 4."""
    source = SyntheticSource(36, SIDE, classes=(1, 2, 3, 4, 5, 6))
    index = build_index(source, cache_dir=index_folder, workers=1, progress=False)
    names = {c: SYNTHETIC_CLASSES[c] for c in source.classes}

    def data(fold, root=None):
        novel = ((1, 2), (3, 4))[fold]
        base = tuple(c for c in source.classes if c not in novel)
        split = ClassSplit(name="tiny", fold=fold, base=base, novel=novel, class_names=names)
        return FoldData(dataset="tiny", source=source, split=split, train=index, test=index)

    return data
