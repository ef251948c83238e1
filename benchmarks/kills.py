"""Kills at random moments: does the next run end where an undisturbed one does, and is anything left behind?

Each trial starts a job, ends it with SIGKILL at a moment drawn from the time that the job takes
(in half of the trials its leading process alone, in the others all of its processes), looks at the files, and
does the job again to its end. Checked are:

- no file that has its final name is half written, right after the kill and at the end;
- the end is bit for bit that of an undisturbed job;
- no temporary file and no lock is left, and no process after two minutes;
- what a server has answered, the next one knows: classes, images, masks, roles (``fewseg serve --keep``).

uv run python benchmarks/kills.py [--kills 20] [--seed 0] [--only label train ...] [--disk] [--log FILE]

Kills that came after the end of the job do not count: the campaign goes on until ``--kills`` have hit it. Of
a server those count that came while its client had a page open.
With ``--disk`` (root only) the job runs too on a small tmpfs, which fills up, on one that is read-only, and
on an ext4 that turns read-only after an error while the job writes; on a sound disk with room it goes on to
the same end. With ``--log`` a campaign is done in parts: the same command goes on, also with more kills, and
ends with the sums. Several of these commands may share the file, each with other jobs (``--only``): one for
each core.
"""

from __future__ import annotations

import csv
import ctypes
import hashlib
import importlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
import tyro
import yaml

from fewseg.ops.files import _TEMPORARY
from parts import in_memory, keep, lines_of, total

HERE = Path(__file__).resolve()
SIZE = 65
AMOUNT = "FEWSEG_KILLS_AMOUNT"  # in the environment, which the processes share
STAMPED = ("environment", "wall_seconds", "created", "seconds", "digest", "counts_sha256")  # of a run


@dataclass(frozen=True, kw_only=True)
class Options:
    """How often what is killed."""

    kills: int = 20  # of each job, before its end
    seed: int = 0
    only: tuple[str, ...] = ()  # of the jobs; all by default
    disk: bool = False  # full and read-only file systems too
    folder: Path | None = None  # where to work; a temporary folder in memory by default
    log: Path | None = None  # a file of the parts that were done
    part: int = 10  # kills of a job, before the next one's turn
    amount: int = 60  # of photographs, steps and episodes that a job is about


def amount() -> int:
    return int(os.environ.get(AMOUNT, "60"))


@cache
def backbone():
    from fewseg.backbones import BackboneConfig, ResNetShape

    shape = ResNetShape(layers=(1, 1, 1, 1), channels=(4, 8, 8, 8), stem_width=4)
    return BackboneConfig(name="resnet18", weights=None, levels=("layer2", "layer3"), shape=shape)


def recipes(inputs: Path) -> None:
    """Registers two tiny recipes on rendered scenes."""
    from fewseg.data.folds import FoldData
    from fewseg.data.index import build_index
    from fewseg.data.protocols import SYNTHETIC
    from fewseg.data.synthetic import SyntheticSource, synthetic_5i
    from fewseg.data.transforms import TrainView
    from fewseg.engine.train_config import AdamW, TrainConfig
    from fewseg.methods.layers import PriorMap
    from fewseg.methods.matcher import MatcherConfig
    from fewseg.methods.pfenet import PFENetConfig
    from fewseg.recipes.recipe import Evaluation, Recipe
    from fewseg.recipes.registry import RECIPES

    source = SyntheticSource(60, SIZE)
    index = build_index(source, cache_dir=inputs / "index", workers=1, progress=False)

    def data(fold, root=None):
        return FoldData(dataset="kills", source=source, split=synthetic_5i(fold), train=index, test=index)

    prior = PriorMap(level="layer3", masked_input=None)
    view = TrainView(size=SIZE, blur=0.0)
    train = TrainConfig(
        steps=amount(), batch=2, view=view, cached_views=1, min_area=64, save_every=4, workers=0
    )
    train = replace(
        train, optimiser=AdamW(lr=1e-3), validate_every=amount() // 3, validation_episodes=4, held_out=(6,)
    )
    trained = Recipe(
        name="kills_pfenet",
        method=PFENetConfig(backbone=backbone(), channels=8, prior=prior, scales=(1.0, 0.5)),
        data=data,
        train=train,
        size=SIZE,
        protocol=replace(SYNTHETIC, episodes=amount(), seeds=(0, 1)),
        evaluations=(Evaluation(shots=1), Evaluation(shots=3)),
    )
    plain = replace(trained, name="kills_matcher", method=MatcherConfig(backbone=backbone()), train=None)
    for made in (trained, plain):
        RECIPES[made.name] = lambda made=made: made


def write_inputs(inputs: Path) -> None:
    """Photographs, annotated ones, and a checkpoint."""
    from PIL import Image

    from fewseg.engine.checkpoint import Checkpoint, save_checkpoint
    from fewseg.methods.matcher import MatcherConfig

    for folder, count in (("sup/images", 2), ("sup/masks", 2), ("photos", amount())):
        (inputs / folder).mkdir(parents=True)
        for k in range(count):
            rng = np.random.default_rng(k + 10 * (folder == "photos"))
            pixels = rng.integers(0, 60, (50, 70, 3)).astype(np.uint8)
            mask = np.zeros((50, 70), np.uint8)
            top, left = rng.integers(2, 20, 2)
            pixels[top : top + 25, left : left + 30] += 150
            mask[top : top + 25, left : left + 30] = 1
            Image.fromarray(mask if folder == "sup/masks" else pixels).save(inputs / folder / f"{k:03}.png")
    config = MatcherConfig(backbone=backbone())
    save_checkpoint(inputs / "tiny.safetensors", config.build().eval(), Checkpoint(config=config), whole=True)
    recipes(inputs)


def command(*words: object) -> None:
    from fewseg.cli import main

    status = main([str(word) for word in words])
    if status:
        raise SystemExit(status)


def label(inputs: Path, out: Path, *words: str) -> None:
    model = inputs / "tiny.safetensors"
    command(
        *("label", "--support", inputs / "sup", "--images", inputs / "photos", "--model", model),
        *("--size", SIZE, "--out", out / "labels", "--quiet", *words),
    )


def label_formats(inputs: Path, out: Path) -> None:
    formats = ("png", "probability", "coco", "coco-results", "labelme", "label-studio", "yolo", "cvat")
    label(inputs, out, "--instances", "components", "--format", *formats)


def label_polygons(inputs: Path, out: Path) -> None:
    label(inputs, out, "--instances", "components", "--format", "labelme-polygons")


def label_ray(inputs: Path, out: Path) -> None:
    label(inputs, out, "--ray", "--ray-workers", "2", "--ray-shard", "5")


def train(inputs: Path, out: Path) -> None:
    recipes(inputs)
    command("train", "kills_pfenet", "--out", out / "run", "--quiet")


def evaluate(inputs: Path, out: Path, *words: str) -> None:
    recipes(inputs)
    command("evaluate", "kills_matcher", "--fold", "0", "--out", out / "results", "--quiet", *words)


def evaluate_two(inputs: Path, out: Path) -> None:
    evaluate(inputs, out, "--processes", "2")


def evaluate_ray(inputs: Path, out: Path) -> None:
    evaluate(inputs, out, "--ray-workers", "2")


def on_cluster(act: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    """A job on a Ray cluster that runs already, and goes on after it."""

    def joined(inputs: Path, out: Path) -> None:
        os.environ["RAY_ADDRESS"] = CLUSTER.address
        act(inputs, out)

    return joined


def index(inputs: Path, out: Path) -> None:
    from fewseg.data.index import build_index
    from fewseg.data.synthetic import SyntheticSource

    for seed in range(6):
        build_index(
            SyntheticSource(amount(), SIZE, seed=seed), cache_dir=out / "index", workers=2, progress=False
        )


def features(inputs: Path, out: Path) -> None:
    from fewseg.data.synthetic import SyntheticSource
    from fewseg.data.transforms import EvalView
    from fewseg.engine.features import FeatureStore

    source = SyntheticSource(7 * amount(), SIZE)
    network = backbone().build().eval()
    FeatureStore(network, source, [EvalView(SIZE)], folder=out / "features").ensure(source.ids)


def export(inputs: Path, out: Path) -> None:
    model = inputs / "tiny.safetensors"
    command("export", "--support", inputs / "sup", "--model", model, "--size", SIZE, "--out", out / "graphs")


JOBS: dict[str, Callable[[Path, Path], None]] = {
    "label": label_formats,
    "label-polygons": label_polygons,  # the files have the names of those of "labelme"
    "train": train,
    "evaluate": evaluate,
    "index": index,
    "features": features,
    "export": export,
    "evaluate-2": evaluate_two,
    "evaluate-ray": evaluate_ray,
    "label-ray": label_ray,
    "evaluate-cluster": on_cluster(evaluate_ray),
    "label-cluster": on_cluster(label_ray),
}
IN_MEMORY = ("index", "features")
"""Jobs that go on without a disk: what they keep is a cache."""

ENDLESS = 3600  # seconds


IDLE = (
    "ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent",
    # of Ray Data, one of each for a cluster
    "ray::_StatsActor", "ray::_UsageCollectionActor", "ray::_AutoscalingCoordinatorActor",
    "ray::ActorLocationTracker",
)  # fmt: skip


class Cluster:
    """A Ray cluster of this machine, which outlives the jobs that join it."""

    def __init__(self) -> None:
        self.address, self.head = "", None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        ray, port = Path(sys.executable).with_name("ray"), free_port()
        command = [ray, "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=false"]
        command += ["--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={os.environ['RAY_TMPDIR']}"]
        self.head = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.address = f"127.0.0.1:{port}"
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                return
            if self.head.poll() is not None:
                raise RuntimeError(f"ray start: exit status {self.head.returncode}")
            time.sleep(0.1)

    def end(self) -> None:
        """Ends all its processes."""
        for pid in [self.head.pid, *descendants(self.head.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.head.wait()
        self.head = None

    def processes(self) -> tuple[list[int], list[int]]:
        """Those that go on without a job, and those that a job's tasks and actors run in."""
        staying, working = [], []
        for pid in [] if self.head is None else [self.head.pid, *descendants(self.head.pid)]:
            busy = (words := command_of(pid)).startswith("ray::") and not words.startswith(IDLE)
            (working if busy else staying).append(pid)
        return staying, working


CLUSTER = Cluster()


class Started:
    """A job in a session of its own: a fork of this process, which has all imported."""

    def __init__(self, name: str, inputs: Path, out: Path) -> None:
        self.log = out.parent / "log.txt"
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            torch.set_num_threads(1)  # makes its pool anew: threads that do so at once find none
            sys.argv = [str(HERE), "do", name, str(inputs), str(out)]  # what starts further ranks
            do(name, inputs, out, self.log)

    def kill(self, *, alone: bool = False) -> None:
        """Kills all its processes, or the leading one alone, whose end must end the others."""
        others = [] if alone else [*descendants(self.pid), *CLUSTER.processes()[1]]
        for pid in [self.pid, *others]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """The exit status; a job that does not end is an error."""
        end = time.monotonic() + ENDLESS
        while time.monotonic() < end:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        raise RuntimeError("it does not end")

    def ended(self) -> bool:
        """Whether it is over, without waiting."""
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return found is not None


@contextmanager
def cluster_of(name: str) -> Iterator[None]:
    """The cluster that a job joins, if it joins one."""
    if not name.endswith("-cluster"):
        yield
        return
    CLUSTER.start()
    try:
        yield
    finally:
        CLUSTER.end()
        left_running()


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *descendants(child)]
    return found


PATIENCE = 120.0
"""Seconds for the other processes of a job to end after its leading one; Ray's agents need more than 30."""


def adopt_orphans() -> None:
    """Makes this process the parent of those below it that lose theirs, so that they are found (Linux)."""
    PR_SET_CHILD_SUBREAPER = 36  # noqa: N806
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def left_running() -> list[str]:
    """The processes that a job left behind for good, which are ended here."""
    end = time.monotonic() + PATIENCE
    while (found := running()) and time.monotonic() < end:
        time.sleep(0.05)
    commands = []
    for pid in found:
        with suppress(OSError):
            commands.append(f"process left: {command_of(pid)[:150]}")
            os.kill(pid, signal.SIGKILL)
    while running():
        time.sleep(0.05)
    if (temporary := os.environ.get("RAY_TMPDIR")) and CLUSTER.head is None:
        for file in Path(temporary).iterdir():
            shutil.rmtree(file, ignore_errors=True)
    return commands


def running() -> list[int]:
    """The processes below this one but a cluster's own; those that have ended are reaped."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    staying, _ = CLUSTER.processes()
    return [pid for pid in descendants(os.getpid()) if pid not in staying]


def command_of(pid: int) -> str:
    """Its command line; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def do(name: str, inputs: Path, out: Path, log: Path | None = None) -> None:
    """Does a job in this process and ends it."""
    status = 1
    try:
        if log is not None:
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
        os.environ["FEWSEG_CACHE"] = str(out / "cache")
        JOBS[name](inputs, out)
        (out.parent / "modules").write_text(" ".join(sys.modules))
        status = 0
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def broken(out: Path, temporary: bool) -> list[str]:
    """What is wrong with the files: half ones and, where they may not be, temporary ones and locks."""
    found = []
    for file in sorted(out.rglob("*")):
        if _TEMPORARY.fullmatch(file.name) or file.suffix in (".lock", ".tmp"):
            found += [f"left: {file.relative_to(out)}"] if not temporary else []
        elif file.is_file() and (why := half_written(file)):
            found.append(f"half written: {file.relative_to(out)} ({why})")
    return found


def half_written(file: Path) -> str:
    """Why a file cannot be read whole; empty where it can."""
    try:
        READ.get(file.suffix, Path.stat)(file)
    except Exception as error:  # whatever a broken file leads to
        return f"{type(error).__name__}: {str(error)[:80]}"
    return ""


def read_lines(file: Path) -> None:
    for line in file.read_bytes().split(b"\n")[:-1]:  # the last one may be cut off by the next run
        json.loads(line)


def read_ending(file: Path) -> None:
    text, end = file.read_text("utf-8"), "</html>\n" if file.suffix == ".html" else "\n"
    if text and not text.endswith(end):  # YOLO's file of an image without things is empty
        raise ValueError(f"it ends with {text[-20:]!r}")


def read_table(file: Path) -> None:
    read_ending(file)
    with file.open(encoding="utf-8", newline="") as text:
        if len(lengths := set(map(len, csv.reader(text)))) != 1:
            raise ValueError(f"lines of {sorted(lengths)} values")


def read_yaml(file: Path) -> None:
    read_ending(file)
    yaml.safe_load(file.read_bytes())


def read_picture(file: Path) -> None:
    from PIL import Image

    with Image.open(file) as image:
        image.load()


def read_arrays(file: Path) -> None:
    found = np.load(file, allow_pickle=False)
    [found[key] for key in getattr(found, "files", ())]


def read_parquet(file: Path) -> None:
    from pyarrow import parquet

    parquet.read_table(file)


def read_graph(file: Path) -> None:
    import onnx

    onnx.load(file)


def tensors_of(file: Path) -> bytes:
    """All that a safetensors file has, but for the stamps of its metadata."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as stored:
        tensors = [(key, stored.get_tensor(key)) for key in sorted(stored.keys())]
        about = {key: unstamped(json.loads(text)) for key, text in (stored.metadata() or {}).items()}
    values = [(k, t.dtype, t.shape, t.reshape(-1).view(torch.uint8).numpy().tobytes()) for k, t in tensors]
    return repr([json.dumps(about, sort_keys=True), values]).encode()


READ: dict[str, Callable[[Path], object]] = {
    ".jsonl": read_lines, ".journal": read_lines, ".json": lambda file: json.loads(file.read_bytes()),
    ".txt": read_ending, ".html": read_ending, ".csv": read_table, ".yaml": read_yaml,
    ".xml": ElementTree.parse, ".png": read_picture, ".jpg": read_picture, ".npy": read_arrays,
    ".npz": read_arrays, ".safetensors": tensors_of, ".parquet": read_parquet, ".onnx": read_graph,
}  # fmt: skip


def outcome(out: Path) -> dict[str, str]:
    """File to a digest of what may not depend on time or order."""
    found = {}
    for file in sorted(out.rglob("*")):
        name = file.relative_to(out).as_posix()
        if not file.is_file() or name.startswith("cache/") or _TEMPORARY.fullmatch(file.name):
            continue
        if "tfevents" in file.name or file.suffix == ".journal":  # may hold a name twice: the last counts
            continue
        content = file.read_bytes()
        if file.suffix == ".json":
            content = json.dumps(unstamped(json.loads(content)), sort_keys=True).encode()
        elif file.suffix in (".jsonl", ".journal"):
            lines = [unstamped(json.loads(line)) for line in content.splitlines()]
            content = json.dumps(sorted(map(json.dumps, lines))).encode()
        elif file.suffix == ".npz":
            with np.load(file) as stored:
                parts = [(key, stored[key].tobytes()) for key in sorted(stored.files)]
            content = repr(parts).encode()
        elif file.suffix == ".safetensors":
            content = tensors_of(file)
        elif file.suffix == ".parquet":
            name, content = "parquet", rows_of(file.parent)  # a killed run parts the images anew
        found[name] = hashlib.sha256(content).hexdigest()[:16]
    return found


def rows_of(folder: Path) -> bytes:
    """All columns of the Parquet files of a folder, in the order of the images, and what they say of them."""
    from pyarrow import parquet

    tables = [parquet.read_table(file) for file in folder.glob("*.parquet")]
    rows = sorted((row for table in tables for row in table.to_pylist()), key=lambda row: row["name"])
    return repr([sorted({repr(table.schema.metadata) for table in tables}), rows]).encode()


def unstamped(value):
    """JSON without what differs from run to run."""
    if isinstance(value, dict):
        return {k: unstamped(v) for k, v in value.items() if k not in STAMPED}
    return [unstamped(each) for each in value] if isinstance(value, list) else value


WANTED: dict[str, dict[str, str]] = {}
"""What the undisturbed jobs of this process ended with."""


def campaign(name: str, trials: range, seed: int, inputs: Path, folder: Path) -> dict[str, object]:
    """Kills one job so often; what was found."""
    wrong: list[str] = []
    for _ in range(1 if name in WANTED or len(trials) == 1 else 2):
        found, seconds = undisturbed(name, inputs, folder)
        wrong += [] if WANTED.setdefault(name, found) == found else ["it does not end twice alike"]
    hit = again = lone = 0
    for k in trials:
        rng = np.random.default_rng([seed, k, *name.encode()])
        own = folder / f"{name}-{k}"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        out = own / "out"
        after, alone = float(rng.uniform(0, seconds)), bool(rng.random() < 0.5)
        started = Started(name, inputs, out)
        time.sleep(after)
        if started.ended():
            seconds = after  # at most: the machine is less busy than it was
        else:
            hit += 1
        lone += alone
        started.kill(alone=alone)
        problems = left_running() + broken(out, temporary=True)
        if rng.random() < 0.3:  # one more kill, of the run that goes on
            again += 1
            started = Started(name, inputs, out)
            time.sleep(float(rng.uniform(0, seconds)))
            started.kill(alone=not alone)
            problems += left_running() + broken(out, temporary=True)
        problems += goes_on(name, inputs, out)
        wrong += [f"kill {k} after {after:.2f} s: {problem}" for problem in problems]
        if not problems:
            shutil.rmtree(own)
    return {
        "work": name, "kills": len(trials), "at work": hit, "leader alone": lone, "second kills": again,
        "seconds": round(seconds, 1), "wrong": wrong,
    }  # fmt: skip


def goes_on(name: str, inputs: Path, out: Path) -> list[str]:
    """Does a job that was disturbed to its end; what is wrong there."""
    started = Started(name, inputs, out)
    status = started.wait()
    problems = [f"exit status {status}: {started.log.read_text()[-500:]}"] if status else []
    problems += left_running() + broken(out, temporary=False)
    wanted, end = WANTED[name], outcome(out)
    return problems + [f"differs: {f}" for f in wanted.keys() | end.keys() if wanted.get(f) != end.get(f)]


def use_page(address: str, folder: Path, inputs: Path, known: dict[str, object], pages: int = 1000) -> None:
    """What a user of the page does, over and over; what the server has answered in full is kept.

    ``known`` is what the server has confirmed to the open page: its token, classes, ids of images, and their
    masks and roles. Of a change that was sent and not confirmed both states are right.
    """
    import httpx

    photos = sorted((inputs / "photos").iterdir())[:2]
    masks = [(inputs / f"sup/masks/{k:03}.png").read_bytes() for k in range(2)]

    def ask(method: str, path: str, **parts: object) -> httpx.Response:
        answer = http.request(method, f"/api/{path}", **parts)
        answer.raise_for_status()
        return answer

    with httpx.Client(base_url=address, timeout=30) as http:
        for k in range(pages):
            known.clear()
            opened = ask("POST", "sessions").json()
            http.headers["X-Fewseg-Session"] = opened["token"]
            known |= {"images": {}, "masks": {}, "roles": {}, "classes": [opened["classes"]]}
            known["token"] = opened["token"]

            now = opened["classes"]
            for method, path, after in (
                ("POST", "classes", [*now, "thing"]),
                ("POST", "classes", [*now, "thing", "other"]),
                ("PUT", f"classes/{len(now) + 2}", [*now, "thing", "changed"]),
            ):
                known["classes"] = [known["classes"][0], after]
                ask(method, path, params={"name": after[-1]})
                known["classes"] = [after]
            for f in photos:
                content = f.read_bytes()
                id = ask("POST", "images", params={"name": f.name}, content=content).json()["id"]
                known["images"][id], known["roles"][id] = content, ["open"]
            for id, mask in zip(known["images"], masks, strict=True):
                for role in ("accepted", "edited", "support"):
                    known["roles"][id].append(role)
                    ask("PUT", f"images/{id}/labels", params={"role": role}, content=mask)
                    known["masks"][id], known["roles"][id] = mask, [role]
            for form in ("png", "coco", "label-studio"):
                answer = ask("GET", f"download/{form}")
                (folder / f"{k}-{form}.{answer.headers['content-type'].rpartition('/')[2]}").write_bytes(
                    answer.content
                )
            token = known.pop("token")  # the page may be gone from now on
            ask("DELETE", "session", headers={"X-Fewseg-Session": token})


def up(address: str) -> int:
    """The status of the page; 0 where nothing answers."""
    import httpx

    try:
        return httpx.get(address, timeout=30).status_code
    except httpx.TransportError:
        return 0


def answers(address: str) -> int:
    """The status of the page, once the server answers; 0 where it does not."""
    for _ in range(2400):
        if status := up(address):
            return status
        time.sleep(0.05)
    return 0


def lost(address: str, known: dict[str, object]) -> list[str]:  # noqa: C901
    """What the server confirmed to the open page and a new server does not have; then the page is closed."""
    import httpx
    from PIL import Image

    def pixels(content: bytes) -> bytes:
        return Image.open(io.BytesIO(content)).tobytes()

    if "token" not in known:
        return []
    with httpx.Client(base_url=address, headers={"X-Fewseg-Session": known["token"]}, timeout=60) as http:
        found = []
        page = http.get("/api/session")
        if page.status_code == 200:
            state = page.json()
            if state["classes"] not in known["classes"]:
                found.append(f"the classes: {state['classes']} instead of {known['classes']}")
            roles = {image["id"]: image["role"] for image in state["images"]}
            for id, right in known["roles"].items():
                if roles.get(id) not in right:
                    found.append(f"the role of {id}: {roles.get(id)} instead of {right}")
            for id, own in known["images"].items():
                if http.get(f"/api/images/{id}/file").content != own:
                    found.append(f"image {id}")
            for id, own in known["masks"].items():
                if pixels(http.get(f"/api/images/{id}/labels").content) != pixels(own):
                    found.append(f"the mask of {id}")
        elif "thing" in known["classes"][0]:  # a page without anything is not kept
            found.append("the page")
        http.delete("/api/session")
    return found


def serve(inputs: Path, out: Path) -> None:
    with suppress(OSError):  # of a read-only disk
        (out / "tmp").mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(out / "tmp")
    port, keep = (out.parent / "port").read_text(), out / "pages"
    command("serve", "--model", inputs / "tiny.safetensors", "--size", SIZE, "--port", port, "--keep", keep)


JOBS["serve"] = serve


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve_campaign(trials: range, seed: int, inputs: Path, folder: Path) -> dict[str, object]:
    """Kills a server while a client uses it: what the client got is whole and known to the next server."""
    import httpx

    import fewseg.serve.app
    import fewseg.serve.connections  # noqa: F401

    wrong: list[str] = []
    got = pages = 0
    port = free_port()
    for k in trials:
        rng = np.random.default_rng([seed, k, *b"serve"])
        own = folder / f"serve-{k}"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        (own / "port").write_text(str(port))
        address = f"http://127.0.0.1:{port}"
        begun = time.monotonic()
        started = Started("serve", inputs, own / "out")
        answers(address)
        # what a user does takes about as long as a start, on a busy machine too
        moment = rng.uniform(0, time.monotonic() - begun)
        killer = threading.Timer(moment, os.kill, (started.pid, signal.SIGKILL))
        killer.start()
        received = own / "received"
        received.mkdir()
        known: dict[str, object] = {}
        with suppress(httpx.TransportError):  # until it is killed
            use_page(address, received, inputs, known)
        started.wait()
        killer.join()
        problems = left_running()
        got += len(list(received.iterdir()))
        pages += "token" in known
        problems += after_server(inputs, own, received, known)
        wrong += [f"kill {k}: {problem}" for problem in problems]
        if not problems:
            shutil.rmtree(own)
    return {
        "work": "serve", "kills": len(trials), "at work": pages, "open pages": pages,
        "downloads": got, "wrong": wrong,
    }  # fmt: skip


def after_server(inputs: Path, own: Path, received: Path, known: dict[str, object]) -> list[str]:
    """What is wrong with the downloads from a server that has ended, its folder, and the next one."""
    import zipfile

    problems = []
    for file in received.iterdir():
        bad = half_written(file) if file.suffix == ".json" else not zipfile.is_zipfile(file)
        problems += [f"{file.name} is not whole"] if bad else []
    address = f"http://127.0.0.1:{(own / 'port').read_text()}"
    again = Started("serve", inputs, own / "out")
    status = answers(address)
    problems += [f"after it the server answers {status}"] if status != 200 else []
    problems += [f"lost {what}" for what in lost(address, known)]
    again.kill()
    files = own / "out/."
    left = left_running() + broken(files, temporary=False)
    left += [str(f) for f in (files / "tmp").rglob("*") if f.is_file()]
    return problems + ([f"left {left[:3]}"] if left else [])


def undisturbed(name: str, inputs: Path, folder: Path) -> tuple[dict[str, str], float]:
    """What a job ends with, and the seconds that it takes."""
    own = folder / f"{name}-undisturbed"
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    start = time.monotonic()
    started = Started(name, inputs, own / "out")
    if started.wait():
        raise RuntimeError(f"{name} fails undisturbed: {started.log.read_text()[-2000:]}")
    seconds = time.monotonic() - start
    for module in (own / "modules").read_text().split():  # so that no later job has to load them
        with suppress(Exception):
            importlib.import_module(module)
    return outcome(own / "out"), seconds


class Disk:
    """A file system of its own: a tmpfs that fills up, a read-only one, or an ext4 with an error."""

    def __init__(self, folder: Path, kind: str, kib: int = 0) -> None:
        self.folder, self.kind = folder, kind
        self.image = folder.with_name(f"{folder.name}.img")
        folder.mkdir()
        if kind == "turning read-only":
            with self.image.open("wb") as file:
                file.truncate(256 * 2**20)
            subprocess.run(["mkfs.ext4", "-q", "-F", str(self.image)], check=True)
            self.mount()
        else:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(folder)], check=True)
        (folder / "out").mkdir()
        subprocess.run(["sync", "-f", str(folder)], check=True)
        if kind != "turning read-only":
            self.remount("ro" if kind == "read-only" else f"size={kib}k")

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)
        self.image.unlink(missing_ok=True)

    def mount(self) -> None:
        words = ["mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.folder)]
        subprocess.run(words, check=True)

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)

    def fail(self) -> None:
        """An error of the file system, which turns it read-only, files that are open too."""
        words = ["findmnt", "-no", "SOURCE", str(self.folder)]
        source = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
        Path(f"/sys/fs/ext4/{Path(source).name}/trigger_fs_error").write_text("read-only")

    def mend(self) -> None:
        """Gives room, or makes it writable again; what an ext4 did not have on its disk is gone."""
        if self.kind == "turning read-only":
            subprocess.run(["umount", str(self.folder)], check=True)
            checked = subprocess.run(["e2fsck", "-fy", str(self.image)], capture_output=True, text=True)
            if checked.returncode > 1:  # 1: there were errors, which are mended
                raise RuntimeError(f"e2fsck: {checked.stdout[-500:]}")
            self.mount()
        else:
            self.remount("rw,size=200m")


def disks(name: str, seed: int, inputs: Path, folder: Path, times: int = 3) -> dict[str, object]:
    """Disks that fill up at different places, read-only ones, and ones that turn so; then they are mended."""
    rng = np.random.default_rng([seed, *name.encode()])
    if name == "serve":
        used, seconds = 50 * 1024, 2.0  # a file takes 4 KiB
    else:
        found, seconds = undisturbed(name, inputs, folder)
        WANTED.setdefault(name, found)
        used = sum(f.stat().st_size for f in (folder / f"{name}-undisturbed/out").rglob("*") if f.is_file())
    wrong: list[str] = []
    turned = 0
    for k, kind in enumerate([*["full"] * times, "read-only", *["turning read-only"] * times]):
        kib = int(rng.uniform(0.05, 0.8) * used / 1024) + 8
        own = folder / f"{name}-log-{k}"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        with Disk(folder / f"{name}-disk-{k}", kind, kib) as disk:
            (own / "out").symlink_to(disk.folder / "out", target_is_directory=True)
            moment = float(rng.uniform(0, seconds)) if kind == "turning read-only" else None
            act = serve_on_disk if name == "serve" else job_on_disk
            hit, problems = act(name, inputs, own, disk, moment)
            turned += hit
        wrong += [f"{kind} ({kib} KiB, {moment} s): {problem}" for problem in problems]
    return {
        "work": name, "full disks": times, "read-only": 1, "turning read-only": times,
        "turned at work": turned, "wrong": wrong,
    }  # fmt: skip


def job_on_disk(
    name: str, inputs: Path, own: Path, disk: Disk, moment: float | None
) -> tuple[bool, list[str]]:
    """Whether the disk turned read-only at work, and what was wrong."""
    started, hit = Started(name, inputs, own / "out"), False
    if moment is not None:
        time.sleep(moment)
        hit = not started.ended()
        disk.fail()
    status, text = started.wait(), started.log.read_text()
    problems = left_running()
    if not status and moment is None and name not in IN_MEMORY:
        problems.append("it does not fail")
    if "Traceback" in text:
        problems.append(f"traceback: {text[-600:]}")
    error = next((line for line in text.splitlines() if line.startswith("fewseg: ")), "")
    if status and not any(str(place) in error for place in (own / "out", disk.folder / "out")):
        problems.append(f"the error names no path: {error or text[-600:]}")
    if moment is None:
        problems += broken(own / "out/.", temporary=True)
    disk.mend()
    return hit, problems + goes_on(name, inputs, own / "out/.")


def serve_on_disk(
    name: str, inputs: Path, own: Path, disk: Disk, moment: float | None
) -> tuple[bool, list[str]]:
    """The same of a server that a client uses: it may refuse or end, and keeps what it has confirmed."""
    import httpx

    port, problems = free_port(), []
    (own / "port").write_text(str(port))
    address, known = f"http://127.0.0.1:{port}", {}
    received = own / "received"
    received.mkdir()
    started = Started(name, inputs, own / "out")
    failing = None
    while not started.ended() and not up(address):
        time.sleep(0.02)
    if not started.ended():
        if moment is not None:
            failing = threading.Timer(moment, disk.fail)
            failing.start()
        try:
            use_page(address, received, inputs, known, pages=3 if moment is None else 1000)
        except httpx.HTTPStatusError as error:
            text = error.response.text
            if error.response.status_code != 507 or "\\n" in text:
                problems.append(f"it answers {error.response.status_code} {text[:200]}")
    if failing is not None:
        failing.join()
    started.kill()
    text = started.log.read_text()
    if "Traceback" in text:
        problems.append(f"traceback: {text[-600:]}")
    problems += left_running()
    disk.mend()
    return failing is not None, problems + after_server(inputs, own, received, known)


def main(options: Options) -> list[dict[str, object]]:
    import torch

    torch.set_num_threads(1)
    os.environ[AMOUNT] = str(options.amount)
    os.environ["RAY_AUTH_MODE"] = "disabled"  # of a cluster that only this machine reaches
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # by default 15: minutes on a busy machine
    unknown = set(options.only) - set(JOBS)
    if unknown:
        raise SystemExit(f"unknown job {', '.join(sorted(unknown))}: choose among {', '.join(JOBS)}")
    names = list(options.only or JOBS)
    lines = [line for line in lines_of(options.log) if line["seed"] == str(options.seed)]
    counted = {k: [line for line in lines if line["work"] == k and "kills" in line] for k in names}
    tried = {k: sum(line["kills"] for line in own) for k, own in counted.items()}
    # older lines of a server have no "at work"
    hits = {k: sum(line.get("at work", line.get("open pages")) for line in own) for k, own in counted.items()}
    adopt_orphans()
    with (
        tempfile.TemporaryDirectory(prefix="fewseg-kills-", dir=in_memory()) as temporary,
        tempfile.TemporaryDirectory(prefix="fewseg-ray-") as os.environ[
            "RAY_TMPDIR"
        ],  # sockets: a short path
    ):
        folder = options.folder or Path(temporary)
        inputs = folder / "inputs"
        folder.mkdir(exist_ok=True)
        if not inputs.exists():
            write_inputs(inputs)

        def done(line: dict[str, object]) -> None:
            lines.append({"seed": str(options.seed), **line})
            keep(options.log, lines[-1])

        while behind := [k for k in names if hits[k] < options.kills]:
            name = min(behind, key=hits.__getitem__)
            trials = range(tried[name], tried[name] + min(options.part, options.kills - hits[name]))
            act = serve_campaign if name == "serve" else partial(campaign, name)
            with cluster_of(name):
                done(act(trials, options.seed, inputs, folder))
            tried[name], hits[name] = trials.stop, hits[name] + lines[-1]["at work"]
        for name in names if options.disk else ():
            if not any(line["work"] == name and "full disks" in line for line in lines):
                with cluster_of(name):
                    done(disks(name, options.seed, inputs, folder))
    sums = [total((line for line in lines if line["work"] == k), ("seconds",)) for k in names]
    if options.log is not None:
        print("in all:", *map(json.dumps, sums), sep="\n")
    return sums


if __name__ == "__main__":
    if sys.argv[1:2] == ["do"]:
        do(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    if any(each["wrong"] for each in main(tyro.cli(Options, description=__doc__))):
        sys.exit(1)
