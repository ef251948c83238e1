"""How the questions of a line are answered: what recipes name and the evaluation takes; free of Lightning."""

from __future__ import annotations

from dataclasses import dataclass

from fewseg.engine.choices import Target
from fewseg.methods.fusion import Fusion


@dataclass(frozen=True, kw_only=True)
class Answering:
    """How questions are answered."""

    fusion: Fusion | None = None  # how K shots become one answer; the method's own by default
    # what is segmented: the query, or the support images themselves, each of them by all supports of its
    # episode (SRPNet's "(sup)" rows; their counts are summed)
    on: Target = "query"
    # sides of the inputs; of several, each has a pass and the probabilities are added. By default the first
    # of the evaluator's, or the recipe's own
    sizes: tuple[int, ...] = ()
    # sides that the logits of a pass are resized to, the probabilities of which are added (SD-AANet, Table
    # IV); by default the logits at the input's size are the answer
    output_sizes: tuple[int, ...] = ()
