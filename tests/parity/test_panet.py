"""PANet against the tensors of the authors' released code (VGG-16, 1-way 1-shot and 2-way 2-shot)."""

from functools import cached_property

import pytest
import torch

from case_images import CaseEpisodes, CaseSource, evaluator_of
from fewseg.backbones import BackboneConfig, load_weights
from fewseg.engine.checkpoint import Checkpoint, load_method, save_checkpoint
from fewseg.engine.evaluate import Line
from fewseg.methods.panet import PANetConfig, alignment_loss
from fewseg.methods.prototypical import EMBEDDING
from fewseg.metrics.counts import count
from fewseg.types import EncodedShots, ImageEpisodes

CASES = ("panet_1way1shot", "panet_2way2shot")
PREFIX = "encoder.backbone.features."


def our_key(official):
    """``features.<block>.<layer>``: conv, ReLU pairs and a pool; timm numbers the layers through."""
    block, layer, kind = official.removeprefix(PREFIX).split(".")
    first = {0: 0, 2: 5, 4: 10, 6: 17, 8: 24}[int(block)]
    return f"features.{first + int(layer)}.{kind}"


class Run:
    """A golden case's weights in a checkpoint that is loaded, and its images without normalisation."""

    def __init__(self, case, folder):
        self.case = case
        backbone = BackboneConfig(
            name="vgg16", weights=None, levels=("layer4",), trainable=True, last_relu=False
        )
        config = PANetConfig(backbone=backbone, align_corners=False)
        made = config.build()
        load_weights(made.backbone.trunk, {our_key(k): v for k, v in case.weights.items()})
        save_checkpoint(folder / "panet.safetensors", made, Checkpoint(config=config))
        self.model = load_method(folder / "panet.safetensors")
        ways, shots, self.batch = case.input("support").shape[:3]
        self.way_of = tuple(w + 1 for w in range(ways) for _ in range(shots))
        self.support = self.pixels("support").flatten(0, 1).transpose(0, 1).contiguous()
        self.queries = self.pixels("query")  # (Q, B, 3, H, W)
        self.truth = case.input("query_label")
        foreground, background = case.input("support_fg"), case.input("support_bg")
        masks = torch.full_like(foreground, 255)  # neither: the other way's class
        masks[background == 1] = 0
        for w in range(ways):
            masks[w][foreground[w] == 1] = w + 1
        self.masks = masks.flatten(0, 1).transpose(0, 1).contiguous()  # (B, W K, H, W)

    def pixels(self, name):
        backbone = self.model.backbone
        return self.case.input(name) * backbone.std.view(3, 1, 1) + backbone.mean.view(3, 1, 1)

    @cached_property
    def shots(self):
        features = self.model.extract(self.support.flatten(0, 1))
        return self.model.embed(features)

    @cached_property
    def state(self):
        return self.model.encode_support(
            EncodedShots(features=self.shots, masks=self.masks, way_of=self.way_of)
        )

    def cells(self, q):
        """The embedded map (B, C, h, w) of a query, and its logits (B, 1 + W, h, w) at that size."""
        query = self.model.embed(self.model.extract(self.queries[q]))
        return query[EMBEDDING], self.model.scores(self.model.prepared(query), self.state.sets[:, 0])

    def output(self):
        return torch.cat([self.model(query, self.support, self.masks, self.way_of) for query in self.queries])

    def losses(self):
        """The query's and the alignment loss; of one query an episode by the path of training."""
        if len(self.queries) == 1:
            found = self.model.losses(
                ImageEpisodes(
                    support_images=self.support,
                    support_masks=self.masks,
                    query_images=self.queries[0],
                    query_masks=self.truth[0],
                    way_of=self.way_of,
                )
            )
            return found.terms["query"], found.terms["alignment"]
        truth = self.truth.flatten(0, 1).long()
        query = torch.nn.functional.cross_entropy(self.output(), truth, ignore_index=255)
        return query, self.alignment().mean()

    def alignment(self):
        """Per episode, of any number of queries together."""
        found = [self.cells(q) for q in range(len(self.queries))]
        maps, logits = (torch.stack(of_queries, dim=1) for of_queries in zip(*found, strict=True))
        return alignment_loss(
            maps,
            logits,
            self.shots[EMBEDDING].unflatten(0, (self.batch, -1)),
            self.masks,
            self.way_of,
            lambda maps, prototypes: self.model.scores(self.model.metric.prepare(maps), prototypes),
            align_corners=False,
        )


@pytest.fixture(scope="module", params=CASES)
def run(request, golden, tmp_path_factory):
    return Run(golden(request.param), tmp_path_factory.mktemp(request.param))


def test_the_encoder_gives_the_released_features(run):
    queries = torch.cat([run.cells(q)[0] for q in range(len(run.queries))])
    shots = run.shots[EMBEDDING].unflatten(0, (run.batch, -1)).transpose(0, 1).flatten(0, 1)
    run.case.assert_close(torch.cat([shots, queries]).mean(dim=(2, 3)), "chanmean_feat")


def test_prototypes(run):
    run.case.assert_close(run.state.sets[:, 0], "prototypes")


def test_scores_at_feature_resolution(run):
    found = torch.stack([run.cells(q)[1] for q in range(len(run.queries))], dim=1)
    run.case.assert_close(found, "pred_feat")


def test_forward_gives_the_released_output(run):
    run.case.assert_close(run.output(), "output")


def test_losses_and_gradients(run):
    query, alignment = run.losses()
    run.case.assert_close(query, "query_loss")
    run.case.assert_close(alignment, "align_loss")
    run.case.assert_close(run.alignment(), "align_loss_per_episode")
    run.model.zero_grad(set_to_none=True)
    (query + alignment).backward(retain_graph=True)
    parameters = dict(run.model.backbone.trunk.named_parameters())
    norms = torch.stack([parameters[our_key(k)].grad.double().norm() for k in run.case.about["grad_keys"]])
    expected = run.case.output("grad_l2").double()
    allowed = float(run.case.about["grad_suggested_rtol"])
    assert float(((norms - expected).abs() / expected).max()) <= allowed


def test_evaluate_gives_the_released_output_and_the_counts_of_its_labels(golden, tmp_path):
    run = Run(golden("panet_1way1shot"), tmp_path)
    truth, released = run.truth[0], run.case.output("output")
    source = CaseSource(run.queries[0], truth, run.support, run.masks)
    evaluator = evaluator_of(run.model, source, tmp_path)
    answers = {question.target: logits for question, logits in evaluator.answers(source.specs)}
    run.case.assert_close(torch.stack([answers[spec.query] for spec in source.specs]), "output")
    (counts,) = evaluator.run([Line(episodes=CaseEpisodes(source.specs))])
    expected = count(released.argmax(dim=1).numpy(), truth.numpy())
    for name in ("fg_inter", "fg_union", "bg_inter", "bg_union", "fg_true"):
        assert abs(getattr(counts, name) - getattr(expected, name)).max() <= 5
