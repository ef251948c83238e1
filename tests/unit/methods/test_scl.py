"""SCL on PFENet and on CANet: the self-guided vectors, the rows of Tables 5 and 6, both second passes."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.canet import Refinement
from fewseg.methods.fusion import CrossGuided, ScoreAverage
from fewseg.methods.scl import SCLCANetConfig, SCLPFENetConfig, SelfGuided, primary_and_auxiliary
from small_segmenters import episodes_of

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


@pytest.fixture
def make_scl_canet(make_method):
    return lambda **changes: make_method(SCLCANetConfig, **changes)


BOTH = pytest.mark.parametrize("config", [SCLPFENetConfig, SCLCANetConfig], ids=["pfenet", "canet"])


@BOTH
@pytest.mark.parametrize("losses", TABLE_6, ids=lambda names: " ".join(names) or "none")
def test_every_row_of_table_6_has_its_terms_and_their_deep_supervision(make_method, shots, config, losses):
    deep = {"deep_weight": 0.25} if config is SCLPFENetConfig else {}
    found = make_method(config, self_guided=SelfGuided(losses=losses), **deep).losses(
        episodes_of(*shots(2, 2))
    )
    names = {"query"} | {f"support_{name}" for name in losses}
    assert set(found.terms) == names | ({f"{name}_deep" for name in names} if deep else set())
    weighted = [(0.25 if k.endswith("_deep") else 1.0) * float(v.detach()) for k, v in found.terms.items()]
    assert float(found.total.detach()) == pytest.approx(sum(weighted), rel=1e-5)


@BOTH
def test_the_three_losses_are_the_cross_entropies_of_the_three_passes(make_method, shots, config):
    once = {"refinement": Refinement(iterations=0)} if config is SCLCANetConfig else {}
    scl = make_method(config, fusion=ScoreAverage(), **once)
    images, masks = shots(2, 2)
    encoded = scl.encode_episodes(episodes_of(images, masks))
    found = scl.training_losses(encoded)
    first = scl.first_pass(encoded.support.features, masks[:, 0])
    second = scl.second_pass(first, scl.second_vectors(first))
    answers = {
        "support_first": (first.first.logits, masks[:, 0]),
        "support_second": (second.logits, masks[:, 0]),
        "query": (scl.segment(encoded.query, scl.encode_support(encoded.support)), masks[:, 1]),
    }
    for name, (logits, truth) in answers.items():
        full = F.interpolate(logits, size=(65, 65), mode="bilinear", align_corners=True)
        expected = F.cross_entropy(full, truth.long(), ignore_index=255)
        torch.testing.assert_close(found.terms[name], expected, atol=1e-5, rtol=1e-4)


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


def test_with_several_shots_every_shot_and_query_is_a_training_pair(make_scl, shots):
    scl = make_scl()
    images, masks = shots(2, 3)
    together = scl.losses(episodes_of(images, masks)).terms["query"]
    alone = [
        scl.losses(episodes_of(images[[b]][:, [k, 2]], masks[[b]][:, [k, 2]])).terms["query"]
        for b, k in itertools.product(range(2), range(2))
    ]
    torch.testing.assert_close(together, sum(alone) / 4, atol=1e-6, rtol=1e-5)


def test_the_first_pass_takes_v_s_twice_and_no_prior(make_scl, shots):
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


@BOTH
def test_the_support_path_of_the_cross_guided_module_segments_by_the_second_pass(
    make_method, shots, encode, config
):
    scl = make_method(config, fusion=CrossGuided(path="support"))
    images, masks = shots(1, 2)
    support = encode(scl, images, masks)
    guides = scl.encode_shots(support.features, masks[0])
    found = scl.cross_logits(support, guides, "support")
    first = scl.first_pass(support.features, masks[0])
    for pair, (k, i) in enumerate(itertools.product(range(2), range(2))):
        if config is SCLPFENetConfig:
            own = first.select(torch.tensor([i]))
            expected = scl.second_pass(own, guides["vectors"][[k]]).logits
        else:  # without a history
            compared = scl.comparison(first.mid[[i]], guides["vectors"][[k]])
            expected = scl.trunk.after_entry(scl.support_entry(compared))
        torch.testing.assert_close(found[[pair]], expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found, scl.cross_logits(support, guides, "query"))


def test_the_support_path_is_comparison_own_first_block_and_the_shared_rest(make_scl_canet, shots):
    scl = make_scl_canet()
    images, masks = shots(1, 2)
    features = scl.extract(images[0])
    first = scl.first_pass(features, masks[0])
    mid = scl.mid.of(features)
    torch.testing.assert_close(scl.encode_query(features).mid, mid)
    guide = torch.stack([first.initial, first.initial], dim=1)
    expected = scl.trunk.after_entry(scl.support_entry(scl.comparison(mid, guide)))
    torch.testing.assert_close(first.first.logits, expected)
    assert scl.comparison.conv.weight.shape[1] == 3 * 8
    assert (scl.trunk.entry.first.weight.shape[1], scl.support_entry.first.weight.shape[1]) == (10, 8)


def test_a_score_refines_the_query_path(make_scl_canet, shots):
    scl = make_scl_canet(refinement=Refinement(iterations=2))
    images, masks = shots(1, 2)
    guides = scl.encode_shots(scl.extract(images[0]), masks[0])
    query = scl.encode_query(scl.extract(shots(1, 2, seed=1)[0][0]))
    logits = scl.iterate(query, guides)
    for _ in range(2):
        logits = scl.iterate(query, guides, logits.softmax(1))
    torch.testing.assert_close(scl.score(query, guides), logits)


def test_a_pairs_history_is_the_mean_of_its_shots_scores(make_scl_canet, shots):
    scl = make_scl_canet(history_reset=0.0, mid_dropout=0.0, head_dropout=0.0).train()
    images, masks = shots(1, 3)
    batch = scl.encode_episodes(episodes_of(images, masks, torch.tensor([5])))
    guides = scl.encode_shots(batch.support.features, masks[0, :2])
    maps = scl.encode_query(batch.query)
    scl.training_losses(batch)
    each = scl.iterate(maps, guides)
    history = each.mean(dim=0, keepdim=True).softmax(1)
    torch.testing.assert_close(scl.history.recall(batch.pair_ids, maps.mid), history, atol=1e-3, rtol=0)
    logits = scl.iterate(maps, guides, history.expand(2, -1, -1, -1))
    full = F.interpolate(logits, size=(65, 65), mode="bilinear", align_corners=True)
    expected = F.cross_entropy(full, masks[0, [2, 2]].long(), ignore_index=255)
    torch.testing.assert_close(scl.training_losses(batch).terms["query"], expected, atol=1e-4, rtol=1e-4)


def test_each_episode_of_a_batch_trains_on_its_own_shots_query_and_history(make_scl_canet, shots):
    images, masks = shots(2, 3)
    ids = torch.tensor([5, 6])
    learner = {"history_reset": 0.0, "mid_dropout": 0.0, "head_dropout": 0.0}

    def losses(rows):
        """Of a second step, which takes the first one's answer as its history."""
        scl = make_scl_canet(**learner).train()
        with torch.no_grad():  # else a guide's and a history's share is lost in rounding
            scl.comparison.conv.weight[:, scl.config.channels :] *= 30
            scl.trunk.entry.first.weight[:, scl.config.channels :] *= 100
        for _ in range(2):
            found = scl.losses(episodes_of(images[rows], masks[rows], ids[rows]))
        return found.terms

    together, alone = losses([0, 1]), [losses([0]), losses([1])]
    for name, found in together.items():
        torch.testing.assert_close(found, (alone[0][name] + alone[1][name]) / 2, atol=1e-5, rtol=1e-4)
    assert abs(float(alone[0]["query"].detach() - alone[1]["query"].detach())) > 1e-3


def test_the_second_pass_of_the_released_pfenet_is_refused():
    with pytest.raises(ValueError, match="on CANet give 'paper'"):
        SCLCANetConfig(self_guided=SelfGuided(second_pass="released"))
