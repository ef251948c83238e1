"""Several ways from a method of two classes: each way on its own, against the rest."""

import pytest
import torch

from fewseg.methods.fusion import CrossGuided, MeanVector, ScoreAverage
from fewseg.types import EncodedShots, SupportState, WaysState

FUSIONS = pytest.mark.parametrize(
    "fusion", [MeanVector(), ScoreAverage(), CrossGuided()], ids=lambda f: f.kind
)


@pytest.fixture
def support(pfenet, shots):
    """(way_of) -> two support sets; each image shows its own way, and another way in a corner."""

    def make(way_of):
        images, masks = shots(2, len(way_of))
        for k, j in enumerate(way_of):
            own = masks[:, k] == 1
            masks[:, k][own] = j
            masks[:, k, 50:62, 50:62] = 1 + j % max(way_of)
        return EncodedShots(features=pfenet.extract(images.flatten(0, 1)), masks=masks, way_of=way_of)

    return make


@pytest.fixture
def query(pfenet, shots):
    return pfenet.extract(shots(1, 2, seed=1)[0][0])


@FUSIONS
@pytest.mark.parametrize("way_of", [(1, 2), (2, 1, 1), (1, 2, 3, 3)])
def test_each_ways_odds_are_those_of_its_own_two_class_answer(pfenet, support, query, fusion, way_of):
    pfenet.fusion = fusion
    sets = support(way_of)
    state = pfenet.encode_support(sets)
    assert isinstance(state, WaysState)
    logits = pfenet.segment(query, state)
    ways = max(way_of)
    assert logits.shape == (2, 1 + ways, 65, 65)
    margins = []
    for j in range(1, ways + 1):
        own = pfenet.segment(query, pfenet.encode_support(sets.one_way(j)))
        assert own.shape == (2, 2, 65, 65)
        margins.append(own[:, 1] - own[:, 0])
        torch.testing.assert_close(logits[:, j] - logits[:, 0], margins[-1], atol=1e-4, rtol=1e-3)
    best = torch.stack(margins).amax(dim=0)
    clear = best.abs() > 1e-3
    assert torch.equal((logits.argmax(dim=1) == 0)[clear], (best < 0)[clear])
    assert not torch.allclose(margins[0], margins[1], atol=1e-4)


def test_the_ways_keep_their_shots_and_a_single_shot_is_judged_by_none(pfenet, support):
    pfenet.fusion = CrossGuided()
    state = pfenet.encode_support(support((2, 1, 2)))
    assert [way.weights.shape for way in state.ways] == [(2, 1), (2, 2)]
    assert state.ways[0].weights.tolist() == [[1.0], [1.0]]


def test_one_state_of_several_ways_serves_many_queries(pfenet, support, query):
    sets = support((1, 2, 1))
    one = EncodedShots(features=sets.features.select(slice(3)), masks=sets.masks[:1], way_of=sets.way_of)
    state = pfenet.encode_support(one)
    together = pfenet.segment(query, state)
    for i in range(2):
        alone = pfenet.segment(query.select(slice(i, i + 1)), state)
        torch.testing.assert_close(together[i], alone[0], atol=1e-5, rtol=1e-4)


@FUSIONS
def test_one_way_is_what_it_was(pfenet, support, query, fusion):
    pfenet.fusion = fusion
    sets = support((1, 1))
    masks = sets.masks.clamp(max=1)
    masks[sets.masks == 255] = 255
    named = EncodedShots(features=sets.features, masks=masks, way_of=(1, 1))
    plain = EncodedShots(features=sets.features, masks=masks)
    state = pfenet.encode_support(named)
    assert isinstance(state, SupportState)
    assert torch.equal(pfenet.segment(query, state), pfenet.segment(query, pfenet.encode_support(plain)))


def test_the_order_of_the_images_does_not_matter(pfenet, support, query):
    sets = support((1, 2, 1))
    order = [2, 1, 0]
    index = [3 * b + k for b in range(2) for k in order]
    other = EncodedShots(features=sets.features.select(index), masks=sets.masks[:, order], way_of=(1, 2, 1))
    torch.testing.assert_close(
        pfenet.segment(query, pfenet.encode_support(other)),
        pfenet.segment(query, pfenet.encode_support(sets)),
        atol=1e-5,
        rtol=1e-4,
    )
