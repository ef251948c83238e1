"""SCL: the self-guided vectors, the rows of Tables 5 and 6, and both forms of the second pass."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.fusion import CrossGuided, ScoreAverage
from fewseg.methods.scl import SelfGuided, primary_and_auxiliary
from fewseg.types import ImageEpisodes

TABLE_5 = [
    ("initial",),
    ("primary",),
    ("auxiliary",),
    ("primary", "auxiliary"),
    ("initial", "primary", "auxiliary"),
]
TABLE_6 = [("first",), ("second",), ("first", "second"), ()]


@pytest.fixture
def case():
    """Feature, share of foreground and first logits of three shots; the second has no foreground."""
    generator = torch.Generator().manual_seed(0)
    mid = torch.randn(3, 4, 5, 6, generator=generator)
    cells = torch.rand(3, 1, 5, 6, generator=generator)
    cells[1] = 0
    logits = torch.randn(3, 2, 5, 6, generator=generator)
    logits[2, 1] = logits[2, 0] + 1  # everything is predicted as foreground: nothing is missed
    return mid, cells, logits


def plain_vectors(mid, cells, logits, threshold):
    """SCL Eq. 4-6, a cell at a time."""
    found = []
    for wanted in (True, False):
        rows = []
        for i in range(len(mid)):
            total, area = torch.zeros(mid.shape[1]), 0
            for y, x in itertools.product(range(mid.shape[2]), range(mid.shape[3])):
                covered = float(logits[i, 1, y, x]) > float(logits[i, 0, y, x])
                if float(cells[i, 0, y, x]) >= threshold and covered is wanted:
                    total, area = total + mid[i, :, y, x], area + 1
            rows.append(total / (area + 5e-4))
        found.append(torch.stack(rows))
    return found


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_the_vectors_are_means_over_what_the_first_pass_covers_and_misses(case, threshold):
    primary, auxiliary = primary_and_auxiliary(*case, threshold)
    expected = plain_vectors(*case, threshold)
    torch.testing.assert_close(primary, expected[0])
    torch.testing.assert_close(auxiliary, expected[1])


def test_the_vector_of_an_empty_region_is_zero(case):
    primary, auxiliary = primary_and_auxiliary(*case)
    assert primary[1].abs().max() == auxiliary[1].abs().max() == 0
    assert auxiliary[2].abs().max() == 0
    assert primary[2].abs().max() > 0


@pytest.mark.parametrize("names", TABLE_5, ids=" ".join)
def test_the_guides_of_every_row_of_table_5(case, names):
    mid, cells, logits = case
    guided = SelfGuided(vectors=names)
    initial = torch.randn(3, 4)
    primary, auxiliary = primary_and_auxiliary(mid, cells, logits)
    named = {"initial": initial, "primary": primary, "auxiliary": auxiliary}
    expected = [named[name] for name in names]
    expected = expected if len(expected) > 1 else expected * 2
    found = guided.second(mid, cells, initial, logits)
    assert torch.equal(found, torch.stack(expected, dim=1))
    assert guided.width == max(2, len(names))
    assert torch.equal(guided.first(initial), torch.stack([initial] * guided.width, dim=1))


@pytest.mark.parametrize("names", [(), ("primary", "primary")])
def test_no_vector_or_one_twice_is_refused(names):
    with pytest.raises(ValueError, match="one or more of 'initial', 'primary', 'auxiliary' without repeats"):
        SelfGuided(vectors=names)


@pytest.mark.parametrize("names", TABLE_5, ids=" ".join)
def test_every_row_of_table_5_builds_and_segments(make_scl, shots, encode, names):
    scl = make_scl(self_guided=SelfGuided(vectors=names))
    state = scl.encode_support(encode(scl, *shots(1, 1)))
    logits = scl.segment(scl.extract(shots(1, 1, seed=1)[0][0]), state)
    assert logits.shape == (1, 2, 65, 65)
    assert scl.query.merge.convs[0].weight.shape[1] == 8 * (1 + max(2, len(names))) + 1
    assert scl.merge_support.convs[0].weight.shape[1] == 8 * (1 + max(2, len(names)))


def episodes_of(images, masks):
    return ImageEpisodes(
        support_images=images[:, :-1],
        support_masks=masks[:, :-1],
        query_images=images[:, -1],
        query_masks=masks[:, -1],
    )


@pytest.mark.parametrize("losses", TABLE_6, ids=lambda names: " ".join(names) or "none")
def test_every_row_of_table_6_has_its_terms_and_their_deep_supervision(make_scl, shots, losses):
    scl = make_scl(self_guided=SelfGuided(losses=losses), deep_weight=0.25)
    found = scl.losses(episodes_of(*shots(2, 2)))
    names = {"query"} | {f"support_{name}" for name in losses}
    assert set(found.terms) == names | {f"{name}_deep" for name in names}
    expected = sum(
        (0.25 if name.endswith("_deep") else 1.0) * float(value.detach())
        for name, value in found.terms.items()
    )
    assert float(found.total.detach()) == pytest.approx(expected, rel=1e-5)


def test_the_three_losses_are_the_cross_entropies_of_the_three_passes(make_scl, shots):
    scl = make_scl(fusion=ScoreAverage())
    images, masks = shots(2, 2)
    encoded = scl.encode_episodes(episodes_of(images, masks))
    found = scl.training_losses(encoded)
    support_masks = masks[:, 0]
    first = scl.first_pass(encoded.support.features, support_masks)
    second = scl.second_pass(first, scl.second_vectors(first))
    query = scl.segment(encoded.query, scl.encode_support(encoded.support))
    answers = {
        "support_first": (first.first.logits, support_masks),
        "support_second": (second.logits, support_masks),
        "query": (query, masks[:, 1]),
    }
    for name, (logits, truth) in answers.items():
        full = F.interpolate(logits, size=(65, 65), mode="bilinear", align_corners=True)
        expected = F.cross_entropy(full, truth.long(), ignore_index=255)
        torch.testing.assert_close(found.terms[name], expected, atol=1e-5, rtol=1e-4)


def test_with_several_shots_every_shot_and_query_is_a_training_pair(make_scl, shots):
    scl = make_scl()
    images, masks = shots(2, 3)
    together = scl.losses(episodes_of(images, masks)).terms["query"]
    alone = [
        scl.losses(episodes_of(images[[b]][:, [k, 2]], masks[[b]][:, [k, 2]])).terms["query"]
        for b, k in itertools.product(range(2), range(2))
    ]
    torch.testing.assert_close(together, sum(alone) / 4, atol=1e-6, rtol=1e-5)


def test_the_first_pass_hears_v_s_twice_and_no_prior(make_scl, shots):
    scl = make_scl()
    images, masks = shots(1, 1)
    features = scl.extract(images[0])
    found = scl.first_pass(features, masks[0])
    mid = scl.mid_support.of(features)
    merged = scl.merge_support(
        mid, torch.stack([found.initial, found.initial], dim=1), torch.zeros(1, 0, 9, 9)
    )
    torch.testing.assert_close(found.first.logits, scl.trunk(merged, (9, 9), deep=False).logits)


def test_the_released_second_pass_takes_the_levels_of_the_first(make_scl, shots):
    images, masks = shots(1, 2)
    paper = make_scl()
    released = make_scl(self_guided=SelfGuided(second_pass="released"))
    features = paper.extract(images[0])
    first = paper.first_pass(features, masks[0])
    vectors = paper.second_vectors(first)
    merged = paper.merge_support(first.mid, vectors, torch.zeros(2, 0, 9, 9))
    own = paper.trunk(merged, (9, 9), deep=False)
    others = paper.trunk(merged, (9, 9), deep=False, previous=first.first.levels)
    torch.testing.assert_close(paper.second_pass(first, vectors).logits, own.logits)
    torch.testing.assert_close(released.second_pass(first, vectors).logits, others.logits)
    assert not torch.allclose(own.logits, others.logits)


def test_the_support_path_of_the_cross_guided_module_segments_by_the_second_pass(make_scl, shots, encode):
    scl = make_scl(fusion=CrossGuided(path="support"))
    images, masks = shots(1, 2)
    support = encode(scl, images, masks)
    guides = scl.encode_shots(support.features, masks[0])
    found = scl.cross_logits(support, guides, "support")
    first = scl.first_pass(support.features, masks[0])
    for pair, (k, i) in enumerate(itertools.product(range(2), range(2))):
        expected = scl.second_pass(first.select(torch.tensor([i])), guides["vectors"][[k]])
        torch.testing.assert_close(found[pair], expected.logits[0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found, scl.cross_logits(support, guides, "query"))
