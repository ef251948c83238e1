"""What a method marks on the queries of episodes, at the images' own size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from fewseg.data.episodes import EpisodeSpec
from fewseg.engine.executors import Question, questions_of
from fewseg.ops.geometry import restore
from fewseg.reports.figures.subjects import Opened

Mask = npt.NDArray[np.bool_]


def question_of(spec: EpisodeSpec) -> Question:
    """What an episode asks."""
    return questions_of(spec, "query")[0]


def predictions(
    opened: Opened, specs: Sequence[EpisodeSpec], shots: int, *, progress: bool = True
) -> Iterator[tuple[Question, Mask]]:
    """Answers the different questions of 1-way episodes, each once, as an evaluation does.

    Args:
        opened: the method.
        specs: episodes of ``shots`` supports.
        shots: K.
        progress: show bars.

    Yields:
        A question and the mask (H, W) that the method marks on its target.
    """
    evaluator = opened.evaluator(progress=progress)
    fusion = opened.fusion(shots)
    for question, logits in evaluator.answers(specs, fusion):
        margins = restore((logits[1:] - logits[:1]).unsqueeze(0), opened.box(question.target))
        yield question, (margins[0, 0] > 0).cpu().numpy()
