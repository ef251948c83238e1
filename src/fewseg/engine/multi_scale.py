"""Multi-scale evaluation: several evaluators of one method, each at an input size of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from fewseg.data.episode_spec import EpisodeSpec
from fewseg.engine.evaluate import Evaluator
from fewseg.engine.shares import Pair, Question, Share
from fewseg.engine.workforce import Task
from fewseg.fusion import CrossGuided, Fusion
from fewseg.methods.multi_scale import added_probabilities


class MultiScaleEvaluator(Evaluator):
    """Adds the probabilities that evaluators of one method give at different sizes (SD-AANet, Table IV).

    Every size has features, guides and scores of its own, kept as at a single one. Counts are made at the
    labels' size, or at the largest input where the protocol counts at the network's.

    Args:
        scales: one evaluator a size, of the same method, source and precision.

    Raises:
        ValueError: no evaluator, or two of one size.
    """

    def __init__(self, scales: Sequence[Evaluator]) -> None:
        sizes = [scale.store.size for scale in scales]
        if not sizes or len(set(sizes)) != len(sizes):
            raise ValueError(f"sizes {sizes}: give one evaluator or more, each of another size")
        largest = scales[sizes.index(max(sizes))]
        super().__init__(
            largest.method,
            largest.source,
            largest.store,
            precision=largest.precision,
            batch=largest.batch,
            workforce=largest.workforce,
            progress=largest.progress,
        )
        self.scales = tuple(scales)

    def judge(self, share: Share, task: Task) -> dict[Pair, float]:
        """Scores the pairs of a share at every size; see ``Evaluator.judge``.

        Raises:
            ValueError: the shots are fused cross-guided, whose weights differ between sizes.
        """
        if isinstance(task.fusion, CrossGuided) and share.judged:
            raise ValueError(
                "multi-scale evaluation cannot weigh shots across sizes: give --fusion mean or average"
            )
        for scale in self.scales:
            scale.judge(share, task)
        return {}

    def answers(
        self, share: Share, task: Task, ious: Mapping[Pair, float]
    ) -> Iterator[tuple[Question, Tensor]]:
        """Added probabilities (1 + N, S, S) of every question, S the largest size."""
        for same in zip(*(scale.answers(share, task, ious) for scale in self.scales), strict=True):
            (question,) = {question for question, _ in same}
            yield question, added_probabilities([logits.unsqueeze(0) for _, logits in same])[0]

    def plain(self, spec: EpisodeSpec, fusion: Fusion | None = None) -> Tensor:
        """Added probabilities (1 + N, S, S) of one episode; nothing is shared or kept."""
        return added_probabilities([scale.plain(spec, fusion).unsqueeze(0) for scale in self.scales])[0]
