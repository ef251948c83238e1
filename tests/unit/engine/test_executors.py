"""Shards hold every question and pair once; they go to workers, and what a lost worker had is done again."""

import sys
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from fewseg.data.episodes import Way
from fewseg.engine import executors
from fewseg.engine.executors import (
    LineQuestions,
    Question,
    RayWorkers,
    Shard,
    ShardFiles,
    SingleProcess,
    leads,
    split,
)
from fewseg.methods.fusion import MeanVector


def question(target, *supports, class_id=1):
    return Question((Way(class_id, supports),), target)


def line(questions, by_pairs=True):
    return LineQuestions(questions=tuple(questions), fusion=MeanVector(), sizes=(33,), by_pairs=by_pairs)


ASKED = [question(f"t{i % 7}", f"s{i}", f"s{i + 1}", class_id=i % 2 + 1) for i in range(20)]
CROSS = [(0, i % 2 + 1, f"s{i + k}", f"s{i + j}") for i in range(20) for k in (0, 1) for j in (0, 1)]


@pytest.mark.parametrize("parts", [1, 2, 3, 50])
def test_every_question_and_pair_is_in_one_shard_with_all_of_its_target(parts):
    lines = [line(ASKED), line(ASKED[:5]), line(ASKED, by_pairs=False)]
    shards = split(lines, CROSS, parts)
    assert shards == split(lines, CROSS[::-1], parts)
    assert len(shards) == parts
    for number, whole in enumerate(lines):
        found = [q for shard in shards for q in shard.lines[number].questions]
        assert sorted(found, key=repr) == sorted(whole.questions, key=repr)
        for shard in shards:  # in the order of the questions
            own = shard.lines[number].questions
            assert list(own) == [q for q in whole.questions if q in own]
    assert sorted(pair for shard in shards for pair in shard.cross) == sorted(CROSS)
    targets = [
        {q.target for of in s.lines[:2] for q in of.questions} | {pair[3] for pair in s.cross} for s in shards
    ]
    assert sum(len(own) for own in targets) == len(set().union(*targets))
    sets = [{q.ways for q in shard.lines[2].questions} for shard in shards]
    assert sum(len(own) for own in sets) == len(set().union(*sets))


def test_shards_are_about_equal_and_of_few_classes():
    asked = [question(f"t{i}", "s", class_id=i % 4) for i in range(100)]
    shards = split([line(asked)], [], 8)
    assert {len(shard.lines[0].questions) for shard in shards} <= {12, 13}
    assert all(len({q.ways[0].class_id for q in shard.lines[0].questions}) == 1 for shard in shards[::2])


class Doubles:
    """A worker: the first step squares the only support's number, the second doubles it and adds a sum."""

    def __init__(self):
        self.done = []

    def prepare(self, images):
        pass

    def cross_iou(self, shard):
        self.done.append(("cross_iou", number(shard)))
        return np.array([number(shard) ** 2.0])

    def counts(self, shard, total):
        self.done.append(("counts", number(shard)))
        return np.array([[total, 2 * number(shard)]])


def number(shard):
    return int(shard.lines[0].questions[0].target)


SHARDS = [Shard((line([question(str(i), "s")]),), ((0, 1, "s", str(i)),)) for i in range(8)]
WANTED = [[140, 2 * i] for i in range(8)]


def both_steps(executor, worker=None, files=None):
    files = files or ShardFiles()
    with executor:
        squares = executor.run(worker, "cross_iou", SHARDS, files)
        found = executor.run(worker, "counts", SHARDS, files, int(sum(squares)[0]))
    return [rows[0].tolist() for rows in found]


def test_shards_on_the_disk_are_read_and_damaged_ones_computed_again(tmp_path, caplog):
    assert both_steps(SingleProcess(), Doubles(), ShardFiles(tmp_path)) == WANTED
    assert len(list(tmp_path.iterdir())) == 16
    (tmp_path / "counts-003-of-008.npy").unlink()
    (tmp_path / "counts-004-of-008.npy").write_bytes(b"half a fi")
    np.save(tmp_path / "counts-005-of-008.npy", np.zeros((7, 2)))
    (tmp_path / "cross_iou-001-of-008.npy").write_bytes(b"")
    worker = Doubles()
    assert both_steps(SingleProcess(), worker, ShardFiles(tmp_path)) == WANTED
    assert worker.done == [("cross_iou", 1), ("counts", 3), ("counts", 4), ("counts", 5)]
    assert caplog.text.count("is damaged") == 2


class ActorDied(Exception):  # noqa: N818 - the stand-in for RayActorError
    """What a call on a lost actor raises."""


@dataclass(eq=False)
class Call:
    """A reference to a result."""

    handle: object
    arguments: tuple


class Handle:
    """An actor: a call is done when its result is fetched."""

    def __init__(self, actor):
        self.actor, self.alive = actor, True
        self.do = SimpleNamespace(remote=lambda *arguments: Call(self, arguments))


class StandIn:
    """As much of Ray as is used; ``dies`` lists the calls, by number, in which the actor is lost."""

    exceptions = SimpleNamespace(RayActorError=ActorDied)

    def __init__(self, dies=(), resources=()):
        self.dies, self.resources = set(dies), dict(resources)
        self.calls, self.made, self.running, self.options = [], 0, False, None

    def is_initialized(self):
        return self.running

    def init(self, **options):
        self.running, self.settings = True, options

    def shutdown(self):
        self.running = False

    def cluster_resources(self):
        return self.resources

    def put(self, value):
        return value

    def remote(self, **options):
        self.options = options
        return lambda kind: SimpleNamespace(remote=lambda *a: self._make(kind, *a))

    def _make(self, kind, *arguments):
        self.made += 1
        return Handle(kind(*arguments))

    def wait(self, references, num_returns):
        assert references
        return [references[-1]], references[:-1]

    def get(self, call):
        step, shard, *_ = call.arguments
        self.calls.append((step, number(shard), id(call.handle)))
        if len(self.calls) in self.dies or not call.handle.alive:
            call.handle.alive = False
            raise ActorDied("killed")
        return call.handle.actor.do(*call.arguments)


@pytest.fixture
def on(monkeypatch):
    """(stand-in, options) -> the counts of eight shards on two workers."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def run(ray, files=None, **options):
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setattr(executors, "_check_versions", lambda ray: None)  # tested with Ray itself
        return both_steps(RayWorkers(Doubles, 2, **options), files=files)

    return run


def test_every_shard_is_done_where_its_first_step_was_done(on):
    ray = StandIn()
    assert on(ray) == WANTED
    assert (ray.made, len(ray.calls), ray.running) == (2, 16, False)
    place = {shard: actor for step, shard, actor in ray.calls if step == "cross_iou"}
    assert all(place[shard] == actor for step, shard, actor in ray.calls if step == "counts")
    assert len(set(place.values())) == 2
    assert ray.options == {"num_cpus": 1, "num_gpus": 0}
    assert ray.settings["num_cpus"] == 2


@pytest.mark.parametrize("dies", [(1,), (8,), (9,), (16,), (3, 4, 12), (1, 2, 3, 4, 5)])
def test_shards_of_a_lost_worker_are_done_again(on, dies, caplog):
    ray = StandIn(dies)
    assert on(ray) == WANTED
    assert ray.made == 2 + len(dies)
    assert len(ray.calls) == 16 + len(dies)
    assert caplog.text.count("a Ray worker was lost") == len(dies)


def test_shards_on_the_disk_go_to_no_worker(on, tmp_path):
    assert on(StandIn(), ShardFiles(tmp_path)) == WANTED
    (tmp_path / "counts-006-of-008.npy").unlink()
    ray = StandIn()
    assert on(ray, ShardFiles(tmp_path)) == WANTED
    assert [call[:2] for call in ray.calls] == [("counts", 6)]


def test_a_cluster_that_kills_everything_is_given_up(on):
    ray = StandIn(range(1, 100))
    with pytest.raises(RuntimeError, match="too many Ray workers were lost"):
        on(ray, lives=3)
    assert (ray.made, ray.running) == (2 + 3, False)


def test_a_running_cluster_is_used_and_left_running_and_workers_have_its_gpus(on):
    ray = StandIn(resources={"GPU": 4})
    ray.running = True
    assert on(ray) == WANTED
    assert ray.running
    assert ray.options["num_gpus"] == 1


def test_a_ray_that_does_not_start_in_time_is_an_error_of_one_line(on, monkeypatch):
    def slow(self, **_):
        raise Exception("The current node timed out\nduring startup.")

    monkeypatch.setattr(StandIn, "init", slow)
    with pytest.raises(RuntimeError, match=r"^The current node timed out during startup\.$"):
        on(StandIn())


def test_without_ray_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeError, match=r"install fewseg\[ray\]"), RayWorkers(Doubles, 1):
        pass
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        RayWorkers(Doubles, 0)


@pytest.mark.parametrize(
    ("given", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "1"}, False),
    ],
)
def test_the_first_process_of_a_run_is_known_by_what_launchers_set(monkeypatch, given, first):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, rank in given.items():
        monkeypatch.setenv(name, rank)
    assert leads() == first
