"""The square images of a golden case as a data set, for parity on the path of ``evaluate``."""

import torch

from fewseg.data.episodes import EpisodeSpec
from fewseg.data.protocols import Protocol
from fewseg.data.transforms import EvalView
from fewseg.engine.evaluate import Evaluator
from fewseg.engine.features import FeatureStore


class CaseSource:
    """B episodes of one class: queries (B, 3, H, W), supports (B, K, 3, H, W) and their masks."""

    name, class_names = "case", {1: "thing"}

    def __init__(self, queries, query_masks, supports, support_masks):
        self.pairs, self.specs = {}, []
        for b in range(len(queries)):
            shots = tuple(f"{b}-support-{k}" for k in range(supports.shape[1]))
            self.pairs[f"{b}-query"] = (queries[b], query_masks[b])
            self.pairs |= dict(zip(shots, zip(supports[b], support_masks[b], strict=True), strict=True))
            self.specs.append(EpisodeSpec(index=b, class_id=1, query=f"{b}-query", supports=shots))

    @property
    def ids(self):
        return tuple(self.pairs)

    def read_image(self, id):
        return self.pairs[id][0]

    def read_labels(self, id):
        return self.pairs[id][1].byte()

    def digest(self):
        return "case"


class CaseEpisodes:
    """All episodes of the case."""

    def __init__(self, specs):
        self.specs, self.protocol = specs, Protocol(name="case", episodes=len(specs), seeds=(0,))

    def episodes(self, seed):
        return self.specs


def evaluator_of(model, source, folder):
    """Evaluates at the images' size, with features in full precision."""
    view = EvalView(source.pairs["0-query"][0].shape[-1])
    store = FeatureStore(model.network, source, [view], folder=folder, dtype=torch.float32)
    return Evaluator(model, source, store, batch=1, progress=False)
