"""A deterministic few-shot set that is rendered, in the shape of PASCAL-5i: 20 classes in 4 folds."""

from fewseg.data.synthetic.source import SYNTHETIC_CLASSES, SyntheticSource, synthetic_5i

__all__ = ["SYNTHETIC_CLASSES", "SyntheticSource", "synthetic_5i"]
