"""Shares go to workers, and what a lost worker had is done again: against a stand-in for Ray."""

import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from fewseg.engine.executors import SHARES_A_WORKER, RayWorkers


class ActorDied(Exception):  # noqa: N818 - the stand-in for RayActorError
    """What a call on a lost actor raises."""


@dataclass(eq=False)
class Call:
    """A reference to a result."""

    handle: object
    method: str
    arguments: tuple


class Handle:
    """An actor: a call is done when its result is asked for."""

    def __init__(self, ray, actor):
        self.ray, self.actor, self.alive = ray, actor, True

    def __getattr__(self, method):
        def remote(*arguments):
            return Call(self, method, arguments)

        return SimpleNamespace(remote=remote)


class StandIn:
    """As much of Ray as is used; ``dies`` says in which calls, by number, the actor is lost."""

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
        return Handle(self, kind(*arguments))

    def wait(self, references, num_returns):
        assert references
        return [references[-1]], references[:-1]

    def get(self, call):
        self.calls.append((call.method, call.arguments[0], id(call.handle)))
        if len(self.calls) in self.dies or not call.handle.alive:
            call.handle.alive = False
            raise ActorDied("killed")
        return getattr(call.handle.actor, call.method)(*call.arguments)


class Doubles:
    """A worker: judging a share gives its square, answering it the sum of all squares and its double."""

    def judge(self, share, task):
        return {("pair", share): share**2}

    def answer(self, share, task, ious):
        return {("question", share): (sum(ious.values()), 2 * share)}


@pytest.fixture
def on(monkeypatch):
    """(stand-in, workers, options) -> the counts of eight shares."""

    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def run(ray, workers=2, **options):
        monkeypatch.setitem(sys.modules, "ray", ray)
        crew = RayWorkers(Doubles, workers, **options)
        assert crew.shares == SHARES_A_WORKER * workers
        return crew.run(None, list(range(8)), "task")

    return run


WANTED = {("question", share): (140, 2 * share) for share in range(8)}


def test_every_share_is_judged_and_then_answered_where_it_was_judged(on):
    ray = StandIn()
    assert on(ray) == WANTED
    assert (ray.made, len(ray.calls), ray.running) == (2, 16, False)
    place = {share: actor for method, share, actor in ray.calls if method == "judge"}
    assert all(place[share] == actor for method, share, actor in ray.calls if method == "answer")
    assert len(set(place.values())) == 2
    assert ray.options == {"num_cpus": 1, "num_gpus": 0}
    assert ray.settings["num_cpus"] == 2


@pytest.mark.parametrize("dies", [(1,), (8,), (9,), (16,), (3, 4, 12), (1, 2, 3, 4, 5)])
def test_shares_of_a_lost_worker_are_done_again(on, dies, caplog):
    ray = StandIn(dies)
    assert on(ray) == WANTED
    assert ray.made == 2 + len(dies)
    assert len(ray.calls) == 16 + len(dies)
    assert caplog.text.count("a Ray worker was lost") == len(dies)


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


def test_without_ray_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeError, match=r"install fewseg\[ray\]"):
        RayWorkers(Doubles, 1).run(None, [], "task")
    with pytest.raises(ValueError, match="got 0 workers"):
        RayWorkers(Doubles, 0)
