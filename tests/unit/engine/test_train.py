"""The training loop: broken and resumed equals unbroken, and nothing is lost on the way."""

import errno
import json
import math
import os
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils.tensorboard import SummaryWriter

from fewseg.data.folds import ClassSplit
from fewseg.engine import train as loop
from fewseg.engine.batches import CachedBatches
from fewseg.engine.checkpoint import load_checkpoint, read_checkpoint
from fewseg.engine.train import Run, TrainingDivergedError, train
from fewseg.engine.train_config import SGD, AdamW, TrainConfig
from fewseg.methods.canet import CANetConfig
from fewseg.methods.pfenet import PFENet, PFENetConfig

STEPS = 6


@pytest.fixture(autouse=True)
def every_step_is_logged(monkeypatch):
    monkeypatch.setattr(loop, "_LOG_EVERY", 1)


@pytest.fixture
def training():
    return TrainConfig(steps=STEPS, batch=2, shots=2, save_every=2, optimiser=AdamW(lr=1e-3, warmup=3))


@pytest.fixture
def batches(sampler, store):
    return CachedBatches(sampler, store, batch=2, seed=0)


class Disturbed:
    """A stream in which something happens in place of one step's batch."""

    def __init__(self, batches, step, happens):
        self.batches, self.step, self.happens = batches, step, happens

    def stream(self, start, stop):
        for step, batch in enumerate(self.batches.stream(start, stop), start):
            yield self.happens(batch) if step == self.step else batch


def interrupt(batch):
    raise KeyboardInterrupt


def kill(batch):
    raise MemoryError


def poison(batch):
    maps = {k: v * math.nan for k, v in batch.query.maps.items()}
    return replace(batch, query=replace(batch.query, maps=maps))


@pytest.fixture
def go(tmp_path, build, config, data, fabric, training, batches):
    """(folder, changes) -> the trained method and the path of its best checkpoint."""

    def run(folder, *, stream=batches, settings=training, fold=data, method_config=config, validate=None):
        method = build()
        about = Run(
            folder=tmp_path / folder, method_config=method_config, data=fold, recipe="t", validate=validate
        )
        return method, train(method, settings, stream, about, fabric, progress=False)

    return run


def losses(folder):
    """Step -> what was logged; a step that was run again counts as it was the last time."""
    rows = map(json.loads, (folder / "losses.jsonl").read_text().splitlines())
    return {row["step"]: row for row in rows}


def same_weights(first, second):
    return all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())


@pytest.mark.parametrize("optimiser", [AdamW(lr=1e-3, warmup=3), SGD(lr=0.05)])
@pytest.mark.parametrize("happens", [interrupt, kill])
def test_a_broken_and_resumed_run_is_the_unbroken_one(go, training, batches, tmp_path, optimiser, happens):
    settings = replace(training, optimiser=optimiser)
    unbroken, _ = go("unbroken", settings=settings)
    with pytest.raises((KeyboardInterrupt, MemoryError)):
        go("broken", settings=settings, stream=Disturbed(batches, 3, happens))
    # an interrupt saves the three steps that are done; a kill leaves the save after the second
    assert read_checkpoint(tmp_path / "broken" / loop.LAST).training["step"] == (
        3 if happens is interrupt else 2
    )
    resumed, best = go("broken", settings=settings)
    assert losses(tmp_path / "broken") == losses(tmp_path / "unbroken")
    assert same_weights(resumed, unbroken)
    assert same_weights(load_checkpoint(best)[0], unbroken)


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["losses.jsonl", "tensorboard/rank0/events", "the end"])
def test_a_full_disk_is_reported_with_the_file(go, tmp_path, monkeypatch, where):
    if where == "losses.jsonl":
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / where).symlink_to("/dev/full")
        monkeypatch.setattr(loop, "_drop_losses_after", lambda *_: None)  # reading /dev/full has no end
    else:
        monkeypatch.setattr(SummaryWriter, "close" if where == "the end" else "add_scalar", full)
        where = "tensorboard/rank0/events"
    with pytest.raises(OSError, match=rf"could not write {tmp_path}/a/{where}: No space left on device"):
        go("a")


def test_a_log_that_a_kill_or_a_full_disk_broke_has_each_step_once_when_the_run_goes_on(
    go, batches, tmp_path
):
    go("unbroken")
    with pytest.raises(MemoryError):  # before the first checkpoint
        go("broken", stream=Disturbed(batches, 1, kill))
    log = tmp_path / "broken" / "losses.jsonl"
    assert not (tmp_path / "broken" / loop.LAST).exists()
    with log.open("a") as file:
        file.write(
            '{"step": 1, "query": 0.3, "tot{"step": 1, "query": 0.25, "total": 0.25}\n[]\n{"step": 2, "q'
        )
    go("broken")
    assert log.read_text() == (tmp_path / "unbroken" / "losses.jsonl").read_text()
    with log.open("a") as file:
        file.write("[" * 10_000 + "\n" + '{"step": null}\n{"step": 9')
    go("broken")
    assert log.read_text() == (tmp_path / "unbroken" / "losses.jsonl").read_text()


def test_a_history_of_predictions_goes_on_where_the_run_was_broken(
    config, data, fabric, training, batches, tmp_path
):
    settings = replace(training, steps=16, save_every=5)
    canet = CANetConfig(backbone=config.backbone, channels=8, history_reset=0.5)
    runs = {}

    def go(folder, stream):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            runs[folder] = canet.build()
        about = Run(folder=tmp_path / folder, method_config=canet, data=data)
        return train(runs[folder], settings, stream, about, fabric, progress=False)

    go("unbroken", batches)
    with pytest.raises(MemoryError):
        go("broken", Disturbed(batches, 12, kill))
    best = go("broken", batches)
    assert losses(tmp_path / "broken") == losses(tmp_path / "unbroken")
    assert same_weights(runs["broken"], runs["unbroken"])
    seen = [pair for batch in batches.stream(0, 16) for pair in batch.pair_ids.tolist()]
    assert len(runs["broken"].history) == len(set(seen)) < len(seen)  # some pairs came twice
    assert len(load_checkpoint(best)[0].history) == len(set(seen))


def test_dropout_depends_on_the_step_alone_not_on_what_was_drawn_before(go, tmp_path):
    go("one")
    torch.rand(100)
    go("two")
    assert losses(tmp_path / "one") == losses(tmp_path / "two")


def test_the_loss_goes_down_and_only_trainable_weights_move(go, build, tmp_path, training):
    before = build()
    after, _ = go("run", settings=replace(training, steps=40, save_every=100, optimiser=AdamW(lr=1e-2)))
    logged = losses(tmp_path / "run")
    first = sum(logged[s]["total"] for s in range(1, 6))
    assert sum(logged[s]["total"] for s in range(36, 41)) < 0.95 * first
    assert after.backbone.digest() == before.backbone.digest()
    assert not same_weights(after, before)


def test_the_log_has_the_terms_the_gradient_norm_and_the_schedules_rate(go, tmp_path, training):
    go("run")
    logged = losses(tmp_path / "run")
    assert list(logged) == list(range(1, STEPS + 1))
    for step, row in logged.items():
        assert row["total"] == pytest.approx(row["query"] + row["query_deep"], rel=1e-5)
        assert row["lr"] == training.optimiser.lr_at(step - 1, STEPS)
        assert row["gradient_norm"] > 0
    assert list((tmp_path / "run" / "tensorboard" / "rank0").iterdir())


def test_the_gradient_is_clipped_to_the_configs_norm(go, build, training):
    rate = 0.1
    settings = replace(training, steps=1, optimiser=SGD(lr=rate, momentum=0.0, weight_decay=0.0), clip=1e-3)
    before = build()
    after, _ = go("run", settings=settings)
    moved = [a - b for a, b in zip(after.parameters(), before.parameters(), strict=True)]
    norm = math.sqrt(sum(float(m.detach().double().pow(2).sum()) for m in moved))
    assert norm == pytest.approx(rate * 1e-3, rel=1e-2)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(go, batches, tmp_path):
    with pytest.raises(TrainingDivergedError, match=r"step 3: .*query nan.*lower the learning rate"):
        go("run", stream=Disturbed(batches, 3, poison))
    path = tmp_path / "run" / loop.LAST
    assert read_checkpoint(path).training["step"] == 2
    loaded, _ = load_checkpoint(path)
    assert all(bool(torch.isfinite(p).all()) for p in loaded.parameters())
    go("run")  # and from there it goes on


def test_an_interrupt_within_an_update_keeps_the_last_whole_step(go, tmp_path, monkeypatch):
    """Half of the weights of one step and half of the next belong to no step."""
    unbroken, _ = go("unbroken")
    step, calls = torch.optim.AdamW.step, []

    def halfway(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            with torch.no_grad():
                self.param_groups[0]["params"][0].add_(1)
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", halfway)
        with pytest.raises(KeyboardInterrupt):
            go("broken")
    assert read_checkpoint(tmp_path / "broken" / loop.LAST).training["step"] == 2
    resumed, _ = go("broken")
    assert same_weights(resumed, unbroken)


def test_a_finished_run_is_left_as_it_is(go, tmp_path):
    first, best = go("run")
    before = losses(tmp_path / "run")
    again, path = go("run")
    assert path == best
    assert same_weights(again, first)
    assert losses(tmp_path / "run") == before


def test_another_config_in_the_same_folder_is_refused_with_what_differs(go, training, config):
    go("run")
    with pytest.raises(
        ValueError, match=r"different config \(training.optimiser.lr: 0.001 there, 0.5 here\)"
    ):
        go("run", settings=replace(training, optimiser=AdamW(lr=0.5, warmup=3)))
    with pytest.raises(ValueError, match=r"training.optimiser.type: 'AdamW' there, 'SGD' here"):
        go("run", settings=replace(training, optimiser=SGD()))
    with pytest.raises(ValueError, match=r"method.deep_weight: 1.0 there, 0.4 here"):
        go("run", method_config=replace(config, deep_weight=0.4))


def test_another_fold_in_the_same_folder_is_refused(go, data):
    """Going on with it would train on the classes that the checkpoint calls novel."""
    go("run")
    names = data.split.class_names
    split = ClassSplit(name="tiny", fold=1, base=(3, 4, 5), novel=(1, 2), class_names=names)
    with pytest.raises(ValueError, match=r"holds a run of a different config .*fold: 0 there, 1 here"):
        go("run", fold=replace(data, split=split))


def test_the_best_checkpoint_is_the_one_that_the_held_out_classes_score_best(go, training, tmp_path):
    settings = replace(training, validate_every=2, held_out=(3,))
    scores, modes = iter([0.1, 0.5, 0.3]), []

    def validate(method):
        modes.append(method.training)
        return next(scores)

    method, path = go("run", settings=settings, validate=validate)
    assert path == tmp_path / "run" / loop.BEST
    best, last = read_checkpoint(path), read_checkpoint(tmp_path / "run" / loop.LAST)
    assert (best.training["step"], best.training["best"]) == (4, 0.5)
    assert (last.training["step"], last.training["best"]) == (6, 0.5)
    assert modes == [False] * 3
    assert not same_weights(load_checkpoint(path)[0], method)


def test_a_resumed_run_remembers_the_best_score(go, training, batches, tmp_path):
    settings = replace(training, validate_every=2, held_out=(3,))
    with pytest.raises(KeyboardInterrupt):
        go("run", settings=settings, validate=lambda m: 0.9, stream=Disturbed(batches, 3, interrupt))
    go("run", settings=settings, validate=lambda m: 0.2)
    assert read_checkpoint(tmp_path / "run" / loop.BEST).training["step"] == 2


def test_a_run_of_before_there_were_several_ways_goes_on(go, training, batches, tmp_path, monkeypatch):
    """Its checkpoint says nothing of ways; it was of one."""
    unbroken, _ = go("unbroken")
    about = loop.describe

    def before(*arguments):
        found = about(*arguments)
        del found.training["config"]["ways"]
        return found

    with monkeypatch.context() as patch:
        patch.setattr(loop, "describe", before)
        with pytest.raises(KeyboardInterrupt):
            go("old", stream=Disturbed(batches, 3, interrupt))
    assert "ways" not in read_checkpoint(tmp_path / "old" / loop.LAST).training["config"]
    with pytest.raises(ValueError, match=r"training.ways: 1 there, 2 here"):
        go("old", settings=replace(training, ways=2))
    resumed, _ = go("old")
    assert same_weights(resumed, unbroken)


@pytest.mark.parametrize(
    "change", [{"best": "a"}, {"step": [1]}, {"watched": {"x": 1}}, {"config": {}}, {"config": 1}]
)
def test_a_checkpoint_with_an_edited_training_is_named(go, batches, tmp_path, change):
    with pytest.raises(KeyboardInterrupt):
        go("run", stream=Disturbed(batches, 3, interrupt))
    path = tmp_path / "run" / loop.LAST
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["fewseg"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    header["training"].update(change)
    save_file(tensors, path, metadata={"fewseg": json.dumps(header)})
    with pytest.raises(ValueError, match=r"last\.safetensors has a config that fewseg cannot use"):
        go("run")


class Shrinking(PFENet):
    """A method one size of which vanishes."""

    sizes = (4.0, 2.0, 0.03, 0.02, 0.01, 0.01)
    step = 0

    def training_losses(self, episodes):
        found = super().training_losses(episodes)
        size = torch.tensor(self.sizes[Shrinking.step])
        Shrinking.step += 1
        return replace(found, watched={"vector_length": size})


@pytest.mark.parametrize(("last", "since"), [(0.01, {"vector_length": 3}), (1.0, {})])
def test_a_collapsed_training_is_named_in_the_log_and_in_the_checkpoint(
    go, build, batches, tmp_path, monkeypatch, caplog, last, since
):
    monkeypatch.setattr(PFENetConfig, "method", Shrinking)
    monkeypatch.setattr(Shrinking, "sizes", (*Shrinking.sizes[:-1], last))
    monkeypatch.setattr(Shrinking, "step", 0)
    with pytest.raises(KeyboardInterrupt):
        go("run", stream=Disturbed(batches, 4, interrupt))  # where it began is known when it goes on
    go("run")
    assert [row["vector_length"] for row in losses(tmp_path / "run").values()] == pytest.approx(
        [*Shrinking.sizes]
    )
    assert caplog.text.count("step 3: vector length is 0.03 and was 4: the training has collapsed") == 1
    about = read_checkpoint(tmp_path / "run" / loop.BEST)
    assert about.training["watched"] == {"start": {"vector_length": 4.0}, "collapsed": since}
