"""PANet's alignment loss, a support at a time."""

import pytest
import torch
import torch.nn.functional as F

from fewseg.methods.panet import NoAlignment, PANetConfig, PrototypeAlignment, alignment_loss
from fewseg.methods.prototypical import EMBEDDING, Cosine
from fewseg.types import EncodedEpisodes, EncodedShots, Features
from small_segmenters import built, small_backbone

SIDE = 17


def score(maps, prototypes):
    return 20 * Cosine().compare(Cosine().prepare(maps), prototypes)


def plain(query, logits, support, masks, way_of, align_corners):
    """PANet Eq. 6, with loops over cells, ways and shots."""
    episodes, queries, channels, height, width = query.shape
    ways = logits.shape[2] - 1
    losses = []
    for b in range(episodes):
        prototypes, counts = [], []
        for j in range(ways + 1):
            total, count = torch.zeros(channels), 0
            for q in range(queries):
                for y in range(height):
                    for x in range(width):
                        if int(logits[b, q, :, y, x].argmax()) == j:
                            total, count = total + query[b, q, :, y, x], count + 1
            prototypes.append(total / (count + 1e-5))
            counts.append(count)
        loss = torch.zeros(())
        for j in range(1, ways + 1):
            own = [k for k, way in enumerate(way_of) if way == j]
            if not counts[j]:
                continue
            for k in own:
                cells = support[b, k]
                scores = [
                    20 * F.cosine_similarity(cells, p[:, None, None], dim=0)
                    for p in (prototypes[0], prototypes[j])
                ]
                full = F.interpolate(
                    torch.stack(scores).unsqueeze(0),
                    size=masks.shape[-2:],
                    mode="bilinear",
                    align_corners=align_corners,
                )
                target = torch.full(masks.shape[-2:], 255)
                target[masks[b, k] == 0] = 0
                target[masks[b, k] == j] = 1
                loss = loss + F.cross_entropy(full, target.unsqueeze(0), ignore_index=255) / len(own) / ways
        losses.append(loss)
    return torch.stack(losses)


@pytest.fixture
def case():
    """(queries, ways, way_of) -> the arguments of the loss for two episodes, predictions of every class."""

    def make(queries, ways, way_of):
        generator = torch.Generator().manual_seed(0)
        query = torch.randn(2, queries, 5, 3, 4, generator=generator)
        logits = torch.randn(2, queries, 1 + ways, 3, 4, generator=generator)
        support = torch.randn(2, len(way_of), 5, 3, 4, generator=generator)
        values = torch.tensor([*range(1 + ways), 255], dtype=torch.uint8)
        masks = values[torch.randint(0, len(values), (2, len(way_of), 13, 15), generator=generator)]
        return query, logits, support, masks, way_of

    return make


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("queries", "ways", "way_of"), [(1, 1, (1,)), (2, 2, (1, 2)), (2, 2, (1, 2, 1)), (1, 3, (3, 1, 2, 2))]
)
def test_the_loss_of_any_queries_ways_and_shots_is_the_plain_one(case, queries, ways, way_of, align_corners):
    arguments = case(queries, ways, way_of)
    found = alignment_loss(*arguments, score, align_corners=align_corners)
    torch.testing.assert_close(found, plain(*arguments, align_corners), atol=1e-4, rtol=1e-4)


def test_its_gradients_reach_query_and_support_features(case):
    query, logits, support, masks, way_of = case(2, 2, (1, 2, 1))
    leaves = [query.requires_grad_(), support.requires_grad_()]
    found = torch.autograd.grad(alignment_loss(query, logits, support, masks, way_of, score).sum(), leaves)
    expected = torch.autograd.grad(plain(query, logits, support, masks, way_of, True).sum(), leaves)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_a_way_that_is_predicted_nowhere_adds_nothing(case):
    query, logits, support, masks, way_of = case(2, 2, (1, 2, 1))
    logits[0, :, 2] = -100  # in the first episode alone
    found = alignment_loss(query, logits, support, masks, way_of, score)
    torch.testing.assert_close(
        found, plain(query, logits, support, masks, way_of, True), atol=1e-4, rtol=1e-4
    )
    logits[0, :, 1] = -100
    found = alignment_loss(query.requires_grad_(), logits, support, masks, way_of, score)
    assert float(found.detach()[0]) == 0
    assert float(found.detach()[1]) > 0
    found.sum().backward()
    assert bool(torch.isfinite(query.grad).all())


def make_model(alignment, **changes):
    backbone = small_backbone("layer3", trainable=True)
    return built(PANetConfig(backbone=backbone, level="layer3", alignment=alignment, **changes))


@pytest.fixture
def episodes():
    """Two embedded episodes of two ways, three shots and one query each."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 3, (2, 4, 3, 3), generator=generator)
    coarse[:, :, 0, 0], coarse[:, :, 1, 1], coarse[:, :, 2, 2] = 0, 1, 2
    masks = coarse.repeat_interleave(6, dim=2).repeat_interleave(6, dim=3)[..., :SIDE, :SIDE].to(torch.uint8)
    lean = torch.randn(3, 6, generator=generator)
    maps = lean[coarse].permute(0, 1, 4, 2, 3)
    maps = maps + 0.5 * torch.randn(maps.shape, generator=generator)

    def features(values):
        return Features(maps={EMBEDDING: values}, image_size=(SIDE, SIDE))

    support = EncodedShots(features=features(maps[:, :3].flatten(0, 1)), masks=masks[:, :3], way_of=(1, 2, 1))
    return EncodedEpisodes(support=support, query=features(maps[:, 3]), query_masks=masks[:, 3])


def plain_alignment(episodes, logits, align_corners):
    query, support = episodes.query[EMBEDDING].unsqueeze(1), episodes.support
    maps = support.features[EMBEDDING].unflatten(0, (2, 3))
    return plain(query, logits.unsqueeze(1), maps, support.masks, (1, 2, 1), align_corners).mean()


def test_the_alignment_of_the_queries_own_predictions_is_added_with_its_weight(episodes):
    found = make_model(PrototypeAlignment(weight=0.25)).training_losses(episodes)
    assert set(found.terms) == {"query", "alignment"}
    model = make_model(NoAlignment())
    full = model.segment(episodes.query, model.encode_support(episodes.support))
    query = F.cross_entropy(full, episodes.query_masks.long(), ignore_index=255)
    torch.testing.assert_close(found.terms["query"], query, atol=1e-4, rtol=1e-4)
    alignment = plain_alignment(episodes, full[..., ::8, ::8], True)  # aligned cells fall on pixels
    torch.testing.assert_close(found.terms["alignment"], alignment, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.total, query + 0.25 * alignment, atol=1e-4, rtol=1e-4)


def test_its_model_hands_the_convention_of_resizing_on(episodes):
    model = make_model(PrototypeAlignment(), align_corners=False)
    logits = model.query_logits(episodes, model.pooled(episodes.support))
    found = model.training_losses(episodes).terms["alignment"]
    torch.testing.assert_close(found, plain_alignment(episodes, logits, False), atol=1e-4, rtol=1e-4)


def test_without_alignment_there_is_the_querys_loss_alone(episodes):
    found = make_model(NoAlignment()).training_losses(episodes)
    assert set(found.terms) == {"query"}
    assert torch.equal(found.total, found.terms["query"])


def test_it_compares_its_level_as_it_is():
    model = make_model(NoAlignment())
    images = torch.rand(1, 3, 33, 33, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.extract(images)[EMBEDDING], model.backbone(images)["layer3"])


def test_the_papers_settings_are_the_defaults():
    config = PANetConfig()
    assert (config.backbone.name, config.backbone.levels) == ("vgg16", ("layer4",))
    assert config.backbone.trainable
    assert (config.metric, config.alpha, config.alignment) == (Cosine(), 20.0, PrototypeAlignment(weight=1.0))
