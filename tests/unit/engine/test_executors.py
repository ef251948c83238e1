"""Shards hold every question and pair once; they go to workers, and what a lost worker had is done again."""

import re
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


class RayError(Exception):
    """The stand-in for the base of all errors of Ray."""


class RayTaskError(RayError):
    """What a call raises whose task failed: its text is the traceback of the cause."""

    def __init__(self, cause):
        super().__init__(f"ray::do() (pid=1)\n  File x\n{type(cause).__name__}: {cause}\nray.X: more\nwords")
        self.cause = cause


LOST = ("RayActorError", "WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError")
ERRORS = {name: type(name, (RayError,), {}) for name in (*LOST, "RaySystemError")}


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
        self.started = SimpleNamespace(remote=lambda: Call(self, ()))


class StandIn:
    """As much of Ray as is used; ``dies`` lists the calls, by number, in which the actor is lost.

    ``machines`` are the resources of each; only the first ``starts`` actors ever start.
    """

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError, **ERRORS)

    def __init__(self, dies=(), machines=({"CPU": 2.0},), starts=99, error=None):
        self.dies, self.machines, self.starts = set(dies), list(machines), starts
        self.error = error or ERRORS["RayActorError"]("killed")
        self.calls, self.made, self.running, self.options = [], 0, False, None

    def is_initialized(self):
        return self.running

    def init(self, **options):
        self.running, self.settings = True, options

    def shutdown(self):
        self.running = False

    def nodes(self):
        return [{"Alive": True, "Resources": machine} for machine in self.machines]

    def put(self, value):
        return value

    def remote(self, **options):
        self.options = options
        return lambda kind: SimpleNamespace(remote=lambda *a: self._make(kind, *a))

    def _make(self, kind, *arguments):
        self.made += 1
        handle = Handle(kind(*arguments))
        handle.starts = self.made <= self.starts
        return handle

    def wait(self, references, num_returns, timeout):
        assert self.running
        done = [call for call in references if call.handle.starts]
        if not done:
            assert timeout is not None, "this waits for ever"
            self.starts = 99
            for call in references:
                call.handle.starts = True
        return done[-1:], []

    def get(self, call):
        assert call.handle.starts
        if not call.arguments:
            return None
        step, shard, *_ = call.arguments
        self.calls.append((step, number(shard), id(call.handle)))
        if len(self.calls) in self.dies or not call.handle.alive:
            call.handle.alive = False
            raise self.error
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


@pytest.mark.parametrize(
    ("text", "in_init", "reason"),
    [
        ("killed\nmore: words", False, "RayActorError: killed"),
        ("it died, ray::A() (pid=1)\n  File x\nValueError: no data\nat all", True, "ValueError: no data"),
    ],
)
def test_a_cluster_that_kills_everything_is_given_up(on, text, in_init, reason):
    error = ERRORS["RayActorError"](text)
    error.actor_init_failed = in_init
    ray = StandIn(range(1, 100), error=error)
    with pytest.raises(
        RuntimeError, match=rf"^too many Ray workers were lost: .* why they died \({reason}\)$"
    ):
        on(ray, retries=3)
    assert (ray.made, ray.running) == (2 + 3, False)


@pytest.mark.parametrize("kind", LOST)
def test_every_way_to_lose_a_worker_costs_a_retry(on, kind, caplog):
    assert on(StandIn([3, 7], error=ERRORS[kind]("the machine\nis gone"))) == WANTED
    assert caplog.text.count(f"a Ray worker was lost ({kind}): a new one") == 2


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            ERRORS["RaySystemError"]("no space\nin /tmp"),
            RuntimeError,
            r"^Ray ended the run \(RaySystemError: no space\): see",
        ),
        (RayTaskError(OSError("no file x")), OSError, "^no file x$"),
        (
            RayTaskError(RayError("an object is gone")),
            RuntimeError,
            r"^Ray ended the run \(RayError: an object is gone\): see",
        ),
    ],
)
def test_other_errors_end_the_run_in_one_line(on, error, kind, words):
    ray = StandIn([3], error=error)
    with pytest.raises(kind, match=words) as caught:
        on(ray)
    assert "\n" not in str(caught.value)
    assert (ray.made, len(ray.calls), ray.running) == (2, 3, False)


def test_an_error_while_the_versions_are_asked_for_is_one_line():
    ray = StandIn(dies=[1])
    with (
        pytest.raises(RuntimeError, match=r"^Ray ended the run \(RayActorError: killed\): see"),
        executors.ray_errors(ray),
    ):
        ray.get(Call(SimpleNamespace(starts=True, alive=False), ("counts", SHARDS[0])))


def test_a_worker_that_does_not_start_gets_no_shard(on, caplog):
    ray = StandIn(starts=1)
    assert on(ray) == WANTED
    assert ray.made == 2
    assert len({actor for _, _, actor in ray.calls}) == 1
    assert "no Ray worker has started" not in caplog.text


def test_it_is_said_that_no_worker_starts(on, caplog):
    assert on(StandIn(starts=0)) == WANTED
    assert caplog.text.count("no Ray worker has started within 60 s") == 1


@pytest.mark.parametrize(
    ("machines", "wanted", "found", "gpus", "words"),
    [
        ([{"CPU": 2.0}], 0, 2, 0, ""),
        ([{"CPU": 2.0}, {"CPU": 1.0}], 0, 3, 0, ""),
        ([{"CPU": 8.0, "GPU": 2.0}], 0, 2, 1, ""),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0}], 1, 1, 1, ""),
        ([{"CPU": 1.0, "GPU": 4.0}, {"CPU": 4.0, "GPU": 1.0}], 0, 2, 1, ""),
        (
            [{"CPU": 8.0, "GPU": 1.0}],
            8,
            1,
            1,
            "has 8 CPUs and 1 GPUs, .* a CPU and a GPU .*: 1 workers in pla",
        ),
        (
            [{"CPU": 2.0}],
            3,
            2,
            0,
            "has 2 CPUs and 0 GPUs, and each worker needs a CPU: 2 workers in place of 3",
        ),
    ],
)
def test_as_many_workers_as_the_cluster_has_room_for(machines, wanted, found, gpus, words, caplog):
    ray = StandIn(machines=machines)
    assert executors.ray_workers(ray, wanted) == (found, {"num_cpus": 1, "num_gpus": gpus})
    assert re.search(words, caplog.text) if words else not caplog.text


def test_the_shards_of_a_run_do_not_depend_on_the_room_in_the_cluster(on, monkeypatch):
    ray = StandIn(machines=[{"CPU": 1.0}])
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(executors, "_check_versions", lambda ray: None)
    with RayWorkers(Doubles, 20) as workers:
        assert (workers.workers, ray.made) == (20, 1)


@pytest.mark.parametrize("machines", [[], [{"memory": 1.0}], [{"CPU": 4.0}, {"GPU": 1.0}]])
def test_a_cluster_without_room_is_refused_in_one_line_and_left(on, machines):
    ray = StandIn(machines=machines)
    with pytest.raises(RuntimeError, match=r"^the Ray cluster has \d CPUs .*: start its machines with --num"):
        on(ray)
    assert not ray.running


def test_a_cluster_that_has_lost_its_machines_is_refused(on):
    ray = StandIn([2])
    ray.error = ERRORS["NodeDiedError"]("gone")
    nodes, asked = ray.nodes, []
    ray.nodes = lambda: [] if asked else (asked.append(1) or nodes())
    with pytest.raises(RuntimeError, match=r"^the Ray cluster has 0 CPUs"):
        on(ray)


def test_a_running_cluster_is_used_and_left_running_and_workers_have_its_gpus(on):
    ray = StandIn(machines=[{"CPU": 4.0, "GPU": 4.0}])
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
