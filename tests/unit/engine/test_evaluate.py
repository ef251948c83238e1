"""Counts at the labels' own size by plain hand; shared work is done once."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fewseg.data.episodes import EpisodeSampler
from fewseg.data.folds import ClassSplit
from fewseg.data.index import build_index
from fewseg.data.protocols import Protocol
from fewseg.data.transforms import EvalView, OriginalView, StretchedView, way_labels
from fewseg.engine.evaluate import ByteCache, Evaluator, Line
from fewseg.engine.features import FeatureStore
from fewseg.methods.canet import Refinement
from fewseg.methods.fusion import CrossGuided, IterativeInference, MeanVector, ScoreAverage
from fewseg.methods.matcher import MatcherConfig
from fewseg.methods.pair_scorer import PairScorer
from fewseg.methods.scl import SCLCANetConfig
from fewseg.types import EncodedShots, Guides, QueryMaps, RaggedShots
from plain import pixel_by_pixel
from small_segmenters import built, tiny

SIDE = 33
SIZES = [(40, 66), (66, 40), (50, 50), (33, 33), (20, 31), (45, 90)]


class Rectangles:
    """Light rectangles of class 1 and dark ones of class 2 on grey noise, at all sorts of sizes."""

    name = "rectangles"
    class_names = {1: "light", 2: "dark"}  # noqa: RUF012 - a constant of the test
    ids = tuple(f"r{i}" for i in range(12))

    def _pair(self, id):
        i = int(id[1:])
        height, width = SIZES[i % len(SIZES)]
        generator = torch.Generator().manual_seed(i)
        image = torch.randint(90, 160, (3, height, width), generator=generator)
        labels = torch.zeros(height, width, dtype=torch.uint8)
        for class_id, shift in ((1, 90), (2, -80)):
            top = int(torch.randint(0, height // 2, (1,), generator=generator))
            left = (class_id - 1) * width // 2
            spot = (slice(top, top + height // 2), slice(left, left + width // 3))
            image[(slice(None), *spot)] += shift
            labels[spot] = class_id
        labels[-2:] = 255
        return image.clamp(0, 255).to(torch.uint8), labels

    def image_size(self, id):
        return SIZES[int(id[1:]) % len(SIZES)]

    def read_image(self, id):
        return self._pair(id)[0]

    def read_labels(self, id):
        return self._pair(id)[1]

    def digest(self):
        return "rectangles-1"


class PairMatcher(PairScorer):
    """Scores a pair by the cosines of stem cells to the mean of the support's foreground and background."""

    def __init__(self, backbone):
        super().__init__(SimpleNamespace(backbone=backbone, fusion=MeanVector()))

    def encode_shots(self, features, masks):
        maps = features["stem"]
        size = tuple(maps.shape[-2:])
        cells = [F.interpolate((masks == j).unsqueeze(1).float(), size) for j in (0, 1)]
        vectors = torch.stack([(maps * c).sum((2, 3)) / (c.sum((2, 3)) + 1e-5) for c in cells], dim=1)
        return Guides(maps={"vectors": vectors})

    def encode_query(self, features):
        maps = features["stem"]
        return QueryMaps(mid=maps, prior=maps.new_zeros(len(maps), 0, 1, 1))

    def score(self, query, guides, prior=None):
        cells, vectors = query.mid.unsqueeze(1), guides["vectors"][..., None, None]
        return 20 * F.cosine_similarity(cells, vectors, dim=2)

    def training_losses(self, episodes):
        raise NotImplementedError


PROTOCOL = Protocol(name="p", episodes=8, seeds=(0, 1), query_order="class_first", min_area=1)


@pytest.fixture(scope="module")
def source():
    return Rectangles()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def index(source, folder):
    return build_index(source, cache_dir=folder, workers=1, progress=False)


@pytest.fixture
def matcher(config):
    """Compares cells of the stem: near enough to colours to tell light from dark without training."""
    backbone = replace(config.backbone, levels=("stem",))
    return MatcherConfig(backbone=backbone, levels=("stem",)).build().eval()


@pytest.fixture
def pairs(config, source, folder):
    """The evaluator of a method that scores pairs."""
    method = PairMatcher(replace(config.backbone, levels=("stem",)))
    store = FeatureStore(method.backbone, source, [EvalView(SIDE)], folder=folder, dtype=torch.float32)
    return Evaluator(method, source, store, progress=False)


@pytest.fixture
def evaluator(matcher, source, folder):
    store = FeatureStore(matcher.backbone, source, [EvalView(SIDE)], folder=folder, dtype=torch.float32)
    return Evaluator(matcher, source, store, progress=False)


@pytest.fixture
def sampler(index):
    """(shots, protocol) -> episodes of both classes."""
    split = ClassSplit(name="s", fold=0, base=(), novel=(1, 2), class_names=Rectangles.class_names)
    return lambda shots, protocol=PROTOCOL, ways=1: EpisodeSampler(index, split, protocol, shots, ways=ways)


def run(evaluator, episodes, fusion=None, **options):
    """The counts of one line."""
    (counts,) = evaluator.run([Line(episodes=episodes, fusion=fusion, **options)])
    return counts


def way_counts(said, labels, classes):
    """One row of counts a way, and where there are several the row of any way."""
    truth = torch.where(labels == 255, 255, 0)
    for way, class_id in enumerate(classes, 1):
        truth[labels == class_id] = way
    seen = pixel_by_pixel(said, truth, len(classes))
    return [dict(zip(seen, values, strict=True)) for values in zip(*seen.values(), strict=True)]


def plain_counts(said, labels, class_id):
    return way_counts(said, labels, [class_id])[0]


def assert_row(found, row, expected):
    assert {name: getattr(found, name)[row] for name in expected} == expected


def plain_labels(logits, size, shown=None):
    """The letterboxed content of logits (2, S, S) at the label's or the shown size, thresholded."""
    h, w = (int(side * logits.shape[-1] / max(size) + 0.5) for side in size)
    difference = (logits[1] - logits[0])[None, None, :h, :w]
    return F.interpolate(difference, size=shown or size, mode="bilinear", align_corners=False)[0, 0] > 0


def test_counts_are_at_the_labels_own_size_whatever_its_shape(evaluator, sampler, source):
    chosen = sampler(1)
    found = run(evaluator, chosen)
    specs = [spec for seed in PROTOCOL.seeds for spec in chosen.episodes(seed)]
    shapes = set()
    for row, spec in enumerate(specs):
        labels = source.read_labels(spec.query)
        shapes.add(tuple(labels.shape))
        said = plain_labels(evaluator.plain(spec), tuple(labels.shape))
        assert_row(found, row, plain_counts(said, labels, spec.class_id))
    assert len(shapes) > 3
    assert float((found.fg_inter / found.fg_union).mean()) > 0.2  # light and dark differ
    assert found.seed.tolist() == [0] * 8 + [1] * 8
    assert found.episode.tolist() == [*range(8), *range(8)]


@pytest.fixture
def own_size(source, folder):
    """The evaluator of images at their own sizes."""
    config = tiny(SCLCANetConfig(refinement=Refinement(iterations=1, image_scales=(0.7, 1.0))))
    method = built(config)
    for module in method.trunk.classifier:  # of two minds about many pixels
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(1))
    store = FeatureStore(method.network, source, [OriginalView()], folder=folder, dtype=torch.float32)
    return Evaluator(method, source, store, progress=False)


@pytest.mark.parametrize("label_size", ["original", "network", 21])
@pytest.mark.parametrize(("shots", "ways"), [(3, 1), (2, 2)])
def test_images_at_their_own_size_are_answered_one_by_one(own_size, sampler, source, label_size, shots, ways):
    chosen = sampler(shots, replace(PROTOCOL, label_size=label_size, episodes=4), ways=ways)
    found, method = run(own_size, chosen), own_size.method
    row = 0
    for spec in chosen.episodes(0):
        parts = []
        for id in spec.all_supports:
            features = method.extract(source.read_image(id)[None] / 255)
            mask = way_labels(source.read_labels(id), spec.classes)
            parts.append(EncodedShots(features=features, masks=mask[None, None]))
        with torch.no_grad():
            state = method.encode_support(RaggedShots(shots=tuple(parts), way_of=spec.way_of))
            logits = method.segment(method.extract(source.read_image(spec.query)[None] / 255), state)
        torch.testing.assert_close(own_size.plain(spec), logits[0])
        labels, margins = source.read_labels(spec.query), logits[:, 1:] - logits[:, :1]
        if label_size == 21:
            box = EvalView(21).box(tuple(labels.shape))
            margins = F.interpolate(margins, size=box.content, mode="bilinear", align_corners=False)
            labels = F.interpolate(labels[None, None], size=box.content, mode="nearest-exact")[0, 0]
        best, way = margins[0].max(dim=0)
        said = torch.where(best > 0, way + 1, 0)
        for expected in way_counts(said, labels, spec.classes):
            assert_row(found, row, expected)
            row += 1
    assert len(np.unique(found.fg_pred)) > 3


def test_counts_at_the_networks_size_leave_the_padding_out(evaluator, sampler, source):
    protocol = Protocol(name="p", episodes=6, seeds=(0,), min_area=1, label_size="network")
    chosen = sampler(1, protocol)
    found = run(evaluator, chosen)
    for row, spec in enumerate(chosen.episodes(0)):
        _, labels = EvalView(SIDE)(source.read_image(spec.query), source.read_labels(spec.query))
        said = evaluator.plain(spec).argmax(dim=0) == 1
        assert_row(found, row, plain_counts(said, labels, spec.class_id))


def in_square(labels, side):
    """The content of a square: the pixel whose centre is nearest."""
    content = [int(n * side / max(labels.shape) + 0.5) for n in labels.shape]
    sides = zip(labels.shape, content, strict=True)
    rows, columns = ([int((i + 0.5) * n / m) for i in range(m)] for n, m in sides)
    return labels[rows][:, columns]


@pytest.mark.parametrize("side", [20, 64])
def test_counts_in_a_square_of_a_fixed_side(evaluator, sampler, source, side):
    """Both are brought to the content of the square; its padding counts nowhere."""
    protocol = Protocol(name="p", episodes=6, seeds=(0,), min_area=1, label_size=side)
    chosen = sampler(1, protocol)
    found = run(evaluator, chosen)
    for row, spec in enumerate(chosen.episodes(0)):
        labels = source.read_labels(spec.query)
        shown = in_square(labels, side)
        said = plain_labels(evaluator.plain(spec), tuple(labels.shape), tuple(shown.shape))
        assert_row(found, row, plain_counts(said, shown, spec.class_id))


OUTPUTS = (41, 65)


def logits_of_one_pass(evaluator, source, spec):
    """Logits (1, 2, h, w) of a 1-shot episode as they leave the network, from its files."""
    method, view = evaluator.method, EvalView(SIDE)
    read = [view(source.read_image(id), source.read_labels(id)) for id in (*spec.supports, spec.query)]
    images, labels = (torch.stack(parts) for parts in zip(*read, strict=True))
    mask = torch.where(labels[:1] == 255, 255, (labels[:1] == spec.class_id).to(torch.uint8))
    with torch.no_grad():
        support, query = method.extract(images[:1]), method.extract(images[1:])
        if isinstance(method, PairScorer):
            return method.score(method.encode_query(query), method.encode_shots(support, mask))
        return method.segment(query, method.encode_support(EncodedShots(features=support, masks=mask[None])))


@pytest.mark.parametrize("label_size", ["original", "network", 20])
@pytest.mark.parametrize("kind", ["evaluator", "pairs"])
def test_the_logits_of_one_pass_are_resized_to_the_output_sizes_and_their_probabilities_added(
    request, kind, sampler, source, label_size
):
    evaluator = request.getfixturevalue(kind)
    protocol = replace(PROTOCOL, label_size=label_size)
    chosen = sampler(1, protocol)
    passes = []
    evaluator.method.backbone.register_forward_hook(lambda *_: passes.append(1))
    found = run(evaluator, chosen, output_sizes=OUTPUTS)
    assert len(passes) <= len(source.ids)
    for row, spec in enumerate([spec for seed in PROTOCOL.seeds for spec in chosen.episodes(seed)]):
        logits = logits_of_one_pass(evaluator, source, spec)
        expected = torch.zeros(1, 2, 65, 65)  # from the network's own logits, not from those at image size
        for size in OUTPUTS:
            own = F.interpolate(logits, size=(size, size), mode="bilinear", align_corners=True).softmax(dim=1)
            expected += F.interpolate(own, size=(65, 65), mode="bilinear", align_corners=True)
        plain = evaluator.plain(spec, output_sizes=OUTPUTS)
        torch.testing.assert_close(plain, expected[0])
        labels = source.read_labels(spec.query)
        if label_size == "network":
            labels = EvalView(SIDE)(source.read_image(spec.query), labels)[1]
            margin = (plain[1] - plain[0])[None, None]
            said = F.interpolate(margin, size=(SIDE, SIDE), mode="bilinear", align_corners=True)[0, 0] > 0
        else:
            shown = labels if label_size == "original" else in_square(labels, label_size)
            said, labels = plain_labels(plain, tuple(labels.shape), tuple(shown.shape)), shown
        assert_row(found, row, plain_counts(said, labels, spec.class_id))


@pytest.mark.parametrize("label_size", ["original", "network"])
def test_a_stretched_view_is_stretched_back(matcher, sampler, source, folder, label_size):
    protocol = Protocol(
        name="p", episodes=6, seeds=(0,), min_area=1, label_size=label_size, aspect="stretched"
    )
    view = StretchedView(SIDE)
    store = FeatureStore(matcher.backbone, source, [view], folder=folder, dtype=torch.float32)
    chosen, evaluator = sampler(1, protocol), Evaluator(matcher, source, store, progress=False)
    found = run(evaluator, chosen)
    for row, spec in enumerate(chosen.episodes(0)):
        labels = source.read_labels(spec.query)
        size = tuple(labels.shape)
        if label_size == "network":
            labels = view(source.read_image(spec.query), labels)[1]
            size = (SIDE, SIDE)
        logits = evaluator.plain(spec)
        difference = (logits[1] - logits[0])[None, None]
        said = F.interpolate(difference, size=size, mode="bilinear", align_corners=False)[0, 0] > 0
        assert_row(found, row, plain_counts(said, labels, spec.class_id))


def test_features_of_another_aspect_than_the_protocols_are_refused(evaluator, sampler):
    with pytest.raises(ValueError, match="aspect is 'stretched' and the stored features are of EvalView"):
        run(evaluator, sampler(1, replace(PROTOCOL, aspect="stretched")))


@pytest.mark.parametrize(
    "fusion", [MeanVector(), ScoreAverage(), CrossGuided(iou="mean")], ids=lambda f: f.kind
)
def test_every_fusion_gives_the_plain_labels(pairs, sampler, source, fusion):
    chosen = sampler(3)
    found = run(pairs, chosen, fusion, seeds=[0])
    for row, spec in enumerate(chosen.episodes(0)):
        labels = source.read_labels(spec.query)
        said = plain_labels(pairs.plain(spec, fusion), tuple(labels.shape))
        assert_row(found, row, plain_counts(said, labels, spec.class_id))


def test_a_pair_is_scored_once_for_all_lines(pairs, sampler, monkeypatch):
    scored, score, encoded, encode = [], pairs.method.score, [], pairs.method.encode_query

    def counting(query, guides, prior=None):
        scored.append(len(guides))
        return score(query, guides, prior)

    monkeypatch.setattr(pairs.method, "score", counting)
    monkeypatch.setattr(pairs.method, "encode_query", lambda f: encoded.append(len(f)) or encode(f))
    chosen = sampler(3)
    fusions = (CrossGuided(), ScoreAverage(), CrossGuided(iou="mean"))
    lines = [Line(episodes=chosen, fusion=fusion) for fusion in fusions]
    pairs.run([*lines, Line(episodes=sampler(1), fusion=ScoreAverage())])
    specs = [spec for seed in PROTOCOL.seeds for spec in chosen.episodes(seed)]
    distinct = {(s.class_id, k, t) for s in specs for k in s.supports for t in (s.query, *s.supports)}
    assert sum(scored) == len(distinct)  # the first of three supports is the one of one
    targets = [{t for _, _, t in distinct}, {s.query for s in specs}]
    assert len(targets[0]) <= len(encoded) <= len(targets[0]) + len(targets[1])


def test_lines_together_have_the_counts_of_each_alone(pairs, sampler):
    lines = [
        Line(episodes=sampler(shots, ways=ways), fusion=fusion, on=on)
        for shots, fusion, ways, on in (
            (1, ScoreAverage(), 1, "query"),
            (3, CrossGuided(), 1, "query"),
            (3, CrossGuided(iou="mean"), 1, "query"),
            (2, MeanVector(), 2, "query"),
            (2, ScoreAverage(), 1, "support"),
        )
    ]
    together = pairs.run(lines)
    for line, found in zip(lines, together, strict=True):
        (alone,) = Evaluator(pairs.method, pairs.source, pairs.store, batch=1, progress=False).run([line])
        for name, column in alone.columns().items():
            assert np.array_equal(column, getattr(found, name)), name


@pytest.mark.parametrize("aligned", [True, False])
def test_ious_are_measured_at_mask_size_with_the_corners_of_the_method(pairs, sampler, aligned):
    pairs.method.cross_iou_align_corners = aligned
    asked = {(s.class_id, k, i) for s in sampler(3).episodes(0) for k in s.supports for i in s.supports}
    pairs.prepare(sorted({id for _, *ids in asked for id in ids}))
    for (class_id, k, i), found in pairs.pair_ious(asked, CrossGuided()).items():
        guide = pairs.method.encode_shots(pairs.images.features([k]), pairs.images.masks([k], [class_id]))
        scores = pairs.method.score(pairs.method.encode_query(pairs.images.features([i])), guide)
        margin = F.interpolate(
            scores[:, 1:] - scores[:, :1], size=(SIDE, SIDE), mode="bilinear", align_corners=aligned
        )
        truth = pairs.images.masks([i], [class_id])
        predicted, true = (margin[:, 0] > 0) & (truth != 255), truth == 1
        assert found == pytest.approx(float((predicted & true).sum() / (predicted | true).sum()), abs=1e-6)


def test_scores_that_the_memory_has_no_room_for_are_made_again(pairs, sampler, monkeypatch):
    narrow = Evaluator(pairs.method, pairs.source, pairs.store, memory=2, progress=False)
    encoded, encode = [], narrow.method.encode_query
    monkeypatch.setattr(narrow.method, "encode_query", lambda f: encoded.append(len(f)) or encode(f))
    found = run(narrow, sampler(3), CrossGuided())
    specs = [spec for seed in PROTOCOL.seeds for spec in sampler(3).episodes(seed)]
    supports, queries = {k for s in specs for k in s.supports}, {s.query for s in specs}
    assert supports & queries
    assert len(encoded) == len(supports) + len(queries)
    expected = run(pairs, sampler(3), CrossGuided())
    assert np.array_equal(expected.fg_inter, found.fg_inter)
    assert np.array_equal(expected.fg_pred, found.fg_pred)


def test_what_was_used_longest_ago_goes_first_and_is_made_again():
    cache, made = ByteCache(3000), []

    def get(name, bytes=1000):
        return cache.get(name, lambda: made.append(name) or torch.zeros(bytes, dtype=torch.uint8))

    for name in ("a", "b", "c", "a", "d", "a", "c", "b"):
        assert len(get(name)) == 1000
        assert cache.bytes <= 3000
    assert made == ["a", "b", "c", "d", "b"]
    assert len(get("large", 5000)) == 5000  # one is kept however large it is
    assert (get("large", 0).numel(), cache.bytes) == (5000, 5000)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"memory": 0}, {"precision": "fp16"}])
def test_settings_that_make_no_sense_are_refused(evaluator, wrong):
    with pytest.raises(ValueError, match="precision must be fp32 or bf16, batch and memory at least 1"):
        Evaluator(evaluator.method, evaluator.source, evaluator.store, **wrong)


def test_a_fusion_that_the_method_cannot_use_is_refused(pairs, evaluator, sampler):
    with pytest.raises(ValueError, match="Matcher cannot use the fusion 'cross-guided': choose one of"):
        run(evaluator, sampler(2), CrossGuided())
    with pytest.raises(ValueError, match="PairMatcher cannot use the fusion 'iterative': choose one of"):
        run(pairs, sampler(2), IterativeInference())


def test_a_support_set_is_encoded_once_and_a_question_answered_once(evaluator, sampler, monkeypatch):
    method, encoded, answered = evaluator.method, [], []
    encode, segment = method.encode_support, method.segment
    monkeypatch.setattr(method, "encode_support", lambda s: encoded.append(1) or encode(s))
    monkeypatch.setattr(method, "segment", lambda q, s: answered.extend(range(len(q))) or segment(q, s))
    protocol = replace(PROTOCOL, episodes=60)
    chosen = sampler(1, protocol)
    specs = [spec for seed in protocol.seeds for spec in chosen.episodes(seed)]
    assert len(run(evaluator, chosen)) == len(specs)
    assert len(encoded) == len({s.ways for s in specs}) < len(specs)
    assert len(answered) == len({(s.ways, s.query) for s in specs}) < len(specs)


@pytest.mark.parametrize("kind", ["evaluator", "pairs"])
def test_several_ways_are_counted_each_and_together(request, kind, sampler, source):
    evaluator = request.getfixturevalue(kind)
    chosen = sampler(2, ways=2)
    found = run(evaluator, chosen, seeds=[0])
    assert len(found) == 3 * PROTOCOL.episodes
    row, hits = 0, 0
    for spec in chosen.episodes(0):
        labels = source.read_labels(spec.query)
        logits = evaluator.plain(spec)
        assert logits.shape == (3, SIDE, SIDE)
        size = tuple(labels.shape)
        h, w = (int(side * SIDE / max(size) + 0.5) for side in size)
        margins = (logits[1:] - logits[:1])[None, :, :h, :w]
        full = F.interpolate(margins, size=size, mode="bilinear", align_corners=False)[0]
        said = torch.cat([torch.zeros_like(full[:1]), full]).argmax(dim=0)
        for expected, class_id in zip(
            way_counts(said, labels, spec.classes), (*spec.classes, 0), strict=True
        ):
            assert found.class_id[row] == class_id
            assert_row(found, row, expected)
            hits += expected["fg_inter"]
            row += 1
    assert hits > 0


@pytest.mark.parametrize("kind", ["evaluator", "pairs"])
def test_on_the_support_set_the_counts_of_its_images_are_summed(request, kind, sampler, source):
    evaluator = request.getfixturevalue(kind)
    chosen = sampler(2)
    found = run(evaluator, chosen, seeds=[0], on="support")
    for row, spec in enumerate(chosen.episodes(0)):
        totals = Counter()
        for id in spec.supports:
            labels = source.read_labels(id)
            said = plain_labels(evaluator.plain(replace(spec, query=id)), tuple(labels.shape))
            totals += Counter(plain_counts(said, labels, spec.class_id))
        assert_row(found, row, totals)


def test_half_precision_moves_few_pixels(matcher, source, folder, sampler):
    results = []
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        store = FeatureStore(matcher.backbone, source, [EvalView(SIDE)], folder=folder, dtype=dtype)
        results.append(
            run(Evaluator(matcher, source, store, precision=precision, progress=False), sampler(1))
        )
    assert np.array_equal(results[0].fg_true, results[1].fg_true)
    moved = np.abs(results[0].fg_pred - results[1].fg_pred).sum()
    assert moved < 0.05 * (results[0].fg_true + results[0].bg_union).sum()
