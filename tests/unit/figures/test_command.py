"""``fewseg report figures`` from end to end, and what it says of what is missing."""

import csv
import json
import re
from pathlib import Path

import pytest

from fewseg.cli import main
from fewseg.engine.results import load_counts
from fewseg.recipes.evaluation import evaluate
from fewseg.recipes.options import EvaluateOptions
from fewseg.reports.figures.base import Claim
from fewseg.reports.figures.failures import failures, outcomes_of
from fewseg.reports.figures.run import FIGURES
from fewseg.reports.numbers import Estimate

SDAANET = ("sdaanet_baseline", "sdaanet_saam", "sdaanet_sdpm", "sdaanet")
QUIET = ("--quiet", "--episodes", "5", "--examples", "2")


@pytest.fixture
def run(capsys):
    """(words) -> exit status and what was output, as one line of text."""

    def report(*words):
        status = main(["report", "figures", *words])
        output = capsys.readouterr()
        return status, " ".join((output.out + output.err).split())

    return report


@pytest.fixture
def results(saved):
    """1-shot results of the baseline and of SD-AANet on fold 0."""
    for name in ("sdaanet_baseline", "sdaanet"):
        evaluate(EvaluateOptions(what=saved(name), out=Path("results"), shots=(1,), quiet=True))
    return Path("results")


def rows(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_all_figures_are_made_with_their_numbers_beside_them(run, saved, results):
    checkpoints = [saved(name) for name in ("scl", "srpnet_f", *SDAANET)]
    status, output = run(str(results), "--checkpoints", *checkpoints, "--out", "out", *QUIET)
    problems = re.findall(r"missing: (.*?)(?= missing:| figures:)", output)
    assert [p for p in problems if not re.match(r"sizes, .*: missing folds 1, 2, 3", p)] == []
    assert status == 3
    names = sorted(p.relative_to("out").as_posix() for p in Path("out").rglob("*.png"))
    size = next(n for n in names if n.startswith("plots/sizes-tiny-"))
    assert size.split(".")[0].endswith("-fold0")  # there is no mean over missing folds
    assert names == sorted(
        [
            "pictures/attention-fold0.png",
            *(f"pictures/failures-{name}-fold0.png" for name in ("scl_pfenet", "srpnet_f", *SDAANET)),
            "pictures/qualitative-fold0.png",
            "pictures/restored-supports-fold0.png",
            "pictures/similarity-fold0.png",
            "pictures/support-masks-scl_pfenet-fold0.png",
            "plots/attention-order.png",
            "plots/failure-rates.png",
            "plots/metric-silhouettes.png",
            "plots/metric-tsne-fold0.png",
            "plots/prototype-silhouettes.png",
            "plots/prototype-tsne-fold0.png",
            "plots/restored-supports-miou.png",
            "plots/shot-weights.png",
            "plots/similarity-order.png",
            size,
            "plots/support-mask-shares.png",
        ]
    )
    for name in names:
        stem = Path("out") / name
        assert stem.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
        assert rows(stem.with_suffix(".csv"))
    _check_sizes(results, Path("out") / size)
    _check_failures(results)
    found = {row["claim"] for row in rows("out/claims.csv")}
    assert {
        "v_aux lies on edges (SCL (PFENet))",
        "SDPM makes prototypes more compact",
        "SD-AANet helps small targets",
        "fidelity separates better than cosine (SRPNet, fidelity)",
        "U_k recognises good shots (SCL (PFENet))",
    } <= found


def _check_sizes(results, figure):
    counts = load_counts(next(results.glob("demo_sdaanet-*.json")))
    reported = [r for r in rows(figure.with_suffix(".csv")) if (r["method"], r["fold"]) == ("SD-AANet", "0")]
    assert sum(int(r["episodes"]) for r in reported) == len(counts)
    assert reported[0]["pixels_below"] == "500"


def _check_failures(results):
    counts = load_counts(next(results.glob("demo_sdaanet-*.json")))
    expected = {name: int(match.sum()) for name, match in failures(outcomes_of(counts)).items()}
    reported = [r for r in rows("out/plots/failure-rates-from-counts.csv") if r["recipe"] == "demo_sdaanet"]
    assert {r["rule"]: int(r["matching"]) for r in reported} == expected
    pictures = rows("out/pictures/failures-sdaanet-fold0.csv")
    assert {(r["seed"], r["episode"]) for r in pictures} <= {(s, e) for s in "01" for e in "01234"}


def test_failures_from_predictions_agree_with_those_from_counts(run, saved, results):
    """Both look at the same episodes: the protocol's own."""
    run(str(results), "--checkpoints", saved("sdaanet"), "--out", "out", "--figure", "failures", "--quiet")
    of_counts = {
        r["rule"]: r["matching"]
        for r in rows("out/plots/failure-rates-from-counts.csv")
        if r["recipe"] == "demo_sdaanet"
    }
    of_predictions = {r["rule"]: r["matching"] for r in rows("out/plots/failure-rates.csv")}
    for rule in ("failed", "missed target", "background kept", "tiny target"):
        assert of_counts[rule] == of_predictions[rule]
    assert "similar class" in of_predictions


def test_a_checkpoint_that_is_gone_is_named_and_the_rest_is_made(run, saved):
    status, output = run(
        *("--checkpoints", "gone.safetensors", saved("scl"), "--out", "out"),
        *("--figure", "support-masks", "attention", *QUIET),
    )
    assert status == 3
    assert "missing: no checkpoint at gone.safetensors" in output
    assert "missing: attention, fold 0: there is no checkpoint of SD-AANet with SAAM" in output
    assert [p.name for p in Path("out").rglob("*.pdf")].count("support-mask-shares.pdf") == 1


def test_a_fold_without_its_checkpoint_is_named(run, saved):
    _, output = run(
        *("--checkpoints", saved("scl"), saved("sdaanet_baseline", 1), saved("sdaanet", 1)),
        *("--out", "out", "--figure", "support-masks", "prototype-tsne", *QUIET),
    )
    assert "missing: support-masks, fold 1: there is no checkpoint of SCL" in output
    assert "missing: prototype-tsne, fold 0: there is no checkpoint of SD-AANet's Table III" in output
    assert "missing: prototype-tsne, fold 1: no checkpoint of baseline + SAAM, baseline + SDPM" in output
    assert Path("out/plots/prototype-tsne-fold1.pdf").exists()


def test_without_a_prototype_method_the_matcher_stands_in(run, saved):
    _, output = run("--checkpoints", saved("scl"), "--out", "out", "--figure", "metric-tsne", *QUIET)
    assert (
        "fidelity separates better than cosine (matcher), tiny fold 0: silhouette of the same cells" in output
    )
    found = rows("out/plots/metric-silhouettes.csv")
    assert [(r["method"], r["metric"]) for r in found] == [("matcher", "cosine"), ("matcher", "fidelity")]


def test_two_checkpoints_of_one_row_are_not_mixed(run, saved):
    again = Path(saved("scl")).with_name("again.safetensors")
    again.write_bytes(Path(saved("scl")).read_bytes())
    _, output = run(
        "--checkpoints", saved("scl"), str(again), "--out", "out", "--figure", "qualitative", *QUIET
    )
    assert "are both SCL (PFENet) fold 0: took the latter" in output


def test_results_of_another_schema_or_protocol_are_named(run, results):
    newer = json.loads(next(results.glob("demo_sdaanet-*.json")).read_text()) | {"schema": 99}
    (results / "newer.json").write_text(json.dumps(newer))
    (results / "newer.counts.npz").write_bytes(next(results.glob("demo_sdaanet-*.npz")).read_bytes())
    options = {"fold": 0, "out": results, "shots": (1,), "episodes": 12, "quiet": True}
    evaluate(EvaluateOptions(what="demo_matcher", **options))
    status, output = run(str(results), "--out", "out", "--figure", "sizes", "--quiet")
    assert status == 3
    assert output.count("newer.json has schema 99; this fewseg reads schema 4") == 1
    assert "missing: left out" not in output
    assert (
        "the results of tiny are of 2 protocols, which do not share a figure; there is one for each" in output
    )
    assert len(list(Path("out/plots").glob("sizes-tiny-*.pdf"))) == 2


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_no_results_are_reported(run, recipes, folder):
    Path("empty").mkdir()
    status, output = run(folder, "--out", "out", "--figure", "sizes", "--quiet")
    assert status == 3
    assert "sizes: no 1-shot result given" in output
    assert "nowhere is not a folder" in output or "empty has no result that can be read" in output


@pytest.mark.parametrize(
    ("words", "reported"),
    [
        (("--figure", "support-mask"), "did you mean support-masks?"),
        (("--episodes", "0"), "must be at least 1, got"),
        (("--examples", "0"), "must be at least 1, got"),
    ],
)
def test_wrong_options_are_refused(run, recipes, words, reported):
    status, output = run(*words)
    assert status == 1
    assert reported in output


def test_the_figures_and_what_each_needs_can_be_listed(run):
    status, output = run("--figure", "list")
    assert status == 0
    for name, kind in FIGURES.items():
        assert f"{name}: {kind.shows}; needs {kind.needs}" in output


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.1, 0.2, "holds"), (-0.1, 0.2, "not shown"), (-0.2, -0.1, "the opposite")]
)
def test_a_claim_holds_when_its_interval_is_above_nothing(low, high, verdict):
    found = Estimate(value=(low + high) / 2, low=low, high=high)
    assert Claim(claim="c", where="w", quantity="q", estimate=found, count=1).verdict == verdict


def test_what_a_figure_needs_is_reported_in_words(run, recipes):
    _, output = run("--out", "out", "--figure", "support-masks", "metric-tsne", "failures", "--quiet")
    assert "support-masks: no checkpoint given, and it needs a checkpoint of SCL missing:" in output
    assert "needs a checkpoint of a prototype method or with a frozen trunk" in output
    assert "failures: no checkpoint given, and it needs a checkpoint missing:" in output


def test_a_claim_has_a_mean_over_all_folds_alone(study):
    made = study("scl")
    numbers = [Estimate(value=0.1 * fold, low=0.0, high=0.4) for fold in range(4)]
    each = {i: [Claim(claim="c", quantity="q", estimate=e, count=10)] for i, e in enumerate(numbers)}
    made.claim("tiny", {fold: one for fold, one in each.items() if fold != 2})
    assert [claim.where for claim in made.claims] == ["tiny fold 0", "tiny fold 1", "tiny fold 3"]
    made.claim("tiny", each)
    whole = made.claims[-1]
    assert (whole.where, whole.count) == ("tiny mean of all folds", 40)
    assert whole.estimate.value == pytest.approx(0.15)
