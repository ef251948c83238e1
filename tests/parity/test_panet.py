"""PANet against the tensors of the authors' released code (VGG-16, 1-way 1-shot and 2-way 2-shot)."""

import pytest
import torch

from fewseg.backbones import BackboneConfig, load_weights
from fewseg.methods.panet import PANetConfig, alignment_loss
from fewseg.methods.prototypical import EMBEDDING
from fewseg.types import EncodedShots, Features

CASES = ("panet_1way1shot", "panet_2way2shot")
PREFIX = "encoder.backbone.features."


def our_key(official):
    """``features.<block>.<layer>``: conv, ReLU pairs and a pool; timm numbers the layers through."""
    block, layer, kind = official.removeprefix(PREFIX).split(".")
    first = {0: 0, 2: 5, 4: 10, 6: 17, 8: 24}[int(block)]
    return f"features.{first + int(layer)}.{kind}"


class Run:
    """A golden case's weights and inputs in our model."""

    def __init__(self, case):
        self.case = case
        backbone = BackboneConfig(
            name="vgg16", weights=None, levels=("layer4",), trainable=True, last_relu=False
        )
        self.model = PANetConfig(backbone=backbone, align_corners=False).build()
        load_weights(self.model.backbone.trunk, {our_key(k): v for k, v in case.weights.items()})
        images, self.query_images = case.input("support"), case.input("query")
        ways, shots, self.batch = images.shape[:3]
        self.way_of = tuple(w + 1 for w in range(ways) for _ in range(shots))
        foreground, background = case.input("support_fg"), case.input("support_bg")
        masks = torch.full_like(foreground, 255)  # neither: the other way's class
        masks[background == 1] = 0
        for w in range(ways):
            masks[w][foreground[w] == 1] = w + 1
        self.masks = masks.flatten(0, 1).transpose(0, 1).contiguous()  # (B, W K, H, W)
        self.support = self.maps(images.flatten(0, 2)).unflatten(0, (ways * shots, self.batch))
        self.query = self.maps(self.query_images.flatten(0, 1)).unflatten(0, (-1, self.batch))
        self.state = self.model.encode_support(self.shots())

    def maps(self, images):
        return self.model.backbone.maps(images)["layer4"]

    def features(self, maps):
        return Features(maps={EMBEDDING: maps}, image_size=tuple(self.query_images.shape[-2:]))

    def shots(self):
        maps = self.support.transpose(0, 1).flatten(0, 1)
        return EncodedShots(features=self.features(maps), masks=self.masks, way_of=self.way_of)

    def query_logits(self, q):
        """At feature resolution: (B, 1 + W, h, w)."""
        cells = self.model.prepared(self.features(self.query[q]))
        return self.model.scores(cells, self.state.sets[:, 0])

    def alignment(self):
        logits = torch.stack([self.query_logits(q) for q in range(len(self.query))], dim=1)
        return alignment_loss(
            self.query.transpose(0, 1),
            logits,
            self.support.transpose(0, 1),
            self.masks,
            self.way_of,
            lambda maps, prototypes: self.model.scores(self.model.metric.prepare(maps), prototypes),
            align_corners=False,
        )

    def output(self):
        answers = [self.model.segment(self.features(maps), self.state) for maps in self.query]
        return torch.cat(answers)


@pytest.fixture(scope="module", params=CASES)
def run(request, golden):
    return Run(golden(request.param))


def test_the_encoder_gives_the_released_features(run):
    flat = torch.cat([run.support.flatten(0, 1), run.query.flatten(0, 1)])
    run.case.assert_close(flat.mean(dim=(2, 3)), "chanmean_feat")


def test_prototypes(run):
    run.case.assert_close(run.state.sets[:, 0], "prototypes")


def test_scores_at_feature_resolution(run):
    found = torch.stack([run.query_logits(q) for q in range(len(run.query))], dim=1)
    run.case.assert_close(found, "pred_feat")


def test_output_and_query_loss(run):
    output = run.output()
    run.case.assert_close(output, "output")
    truth = run.case.input("query_label").flatten(0, 1).long()
    loss = torch.nn.functional.cross_entropy(output, truth, ignore_index=255)
    run.case.assert_close(loss, "query_loss")


def test_alignment_loss(run):
    found = run.alignment()
    run.case.assert_close(found, "align_loss_per_episode")
    run.case.assert_close(found.mean(), "align_loss")


def test_gradients_of_both_losses(run):
    truth = run.case.input("query_label").flatten(0, 1).long()
    query = torch.nn.functional.cross_entropy(run.output(), truth, ignore_index=255)
    run.model.zero_grad(set_to_none=True)
    (query + run.alignment().mean()).backward(retain_graph=True)
    parameters = dict(run.model.backbone.trunk.named_parameters())
    norms = torch.stack([parameters[our_key(k)].grad.double().norm() for k in run.case.about["grad_keys"]])
    expected = run.case.output("grad_l2").double()
    allowed = float(run.case.about["grad_suggested_rtol"])
    assert float(((norms - expected).abs() / expected).max()) <= allowed
