"""Label Studio's ML backend on the server of the page: annotated tasks in, predictions of the others out.

``client`` reads Label Studio, ``label_config`` its labelling configuration, ``project`` keeps the supports of
a project, ``backend`` answers, ``routes`` is the protocol in HTTP. Needs the extra ``serve``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Annotated, Any
from xml.etree.ElementTree import Element, ParseError

import httpx
import torch
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from fewseg.annotations.label_studio import (
    Tool,
    changed_at,
    chosen_annotation,
    drawn,
    label_studio_prediction,
    labels_of,
)
from fewseg.annotations.options import ReadOptions
from fewseg.annotations.shapes import BACKGROUND_NAMES, IGNORE_NAMES
from fewseg.annotations.values import json_field as field
from fewseg.annotations.values import shown, typed
from fewseg.inference.model import Model, view_masks
from fewseg.inference.session import Session
from fewseg.inference.supports import SupportImage, SupportSet
from fewseg.serve.label_studio_client import Account, StudioClient
from fewseg.serve.limits import MIB, Limits, Refused, read_body
from fewseg.serve.workspace import EncodedImages
from fewseg.types import DataError

_LONGEST = 2**20
_TOOLS: dict[str, Tool] = {"BrushLabels": "brushlabels", "PolygonLabels": "polygonlabels"}  # best first
_ACCEPTED = "an <Image> and a <BrushLabels> or <PolygonLabels> for it: add one in the project's settings"


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """The part of a labelling configuration that segmentation needs.

    Attributes:
        from_name: of the tag that takes the predictions.
        to_name: of its image.
        key: of the image's address in a task's data.
        tool: what the tag draws with.
        labels: that it has; none where they come with each task.
    """

    from_name: str
    to_name: str
    key: str
    tool: Tool
    labels: tuple[str, ...]


def read_label_config(text: str) -> LabelConfig:
    """Reads a configuration: of the tags that can take masks a brush is preferred, then the first.

    Declarations of a document type, and so entities of any kind, are refused.

    Raises:
        DataError: it is no XML, or has no such tag.
    """
    if len(text) > _LONGEST:
        raise DataError(f"the labelling configuration has {len(text)} letters; accepted are {_LONGEST}")
    try:
        root: Element = fromstring(text, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, RecursionError) as error:
        raise DataError(
            f"the labelling configuration is no plain XML ({error}); accepted is {_ACCEPTED}"
        ) from error
    images = {tag.get("name", ""): tag.get("value", "").removeprefix("$") for tag in root.iter("Image")}
    for name, tool in _TOOLS.items():
        for tag in root.iter(name):
            own, image = tag.get("name", ""), tag.get("toName", "")
            if own and images.get(image):
                labels = tuple(dict.fromkeys(_labels(tag)))
                return LabelConfig(from_name=own, to_name=image, key=images[image], tool=tool, labels=labels)
    tags = sorted({tag.tag for tag in root.iter() if isinstance(tag.tag, str)})
    raise DataError(f"the labelling configuration has the tags {shown(tags)}; accepted is {_ACCEPTED}")


def _labels(tag: Element) -> Iterator[str]:
    """The names that results have: an alias counts before the value."""
    for label in tag.iter("Label"):
        name = label.get("alias") or label.get("value") or ""
        if name and not name.startswith("$"):
            yield name


logger = logging.getLogger(__name__)

_KEY_POINTS = "keypointlabels"
_NEGATIVE = ""  # stands for the class of images that show none


@dataclass(frozen=True, kw_only=True)
class Example:
    """An annotated task, as a support.

    Attributes:
        task: its id.
        address: of its image.
        regions: of the annotation that counts; none on an image that shows none of the classes.
        labels: of the regions.
        changed: when, in seconds since 1970.
        fingerprint: tells whether any of this changed but the time.
    """

    task: int
    address: str
    regions: Sequence[dict[str, Any]]
    labels: frozenset[str]
    changed: float
    fingerprint: str


def read_examples(tasks: Sequence[Any], config: LabelConfig) -> list[Example]:
    """Returns the annotated tasks of an export; what cannot be used is left out, with a line in the log.

    Of several annotations of a task the ground truth counts, else the latest that was not cancelled.
    """
    found = []
    for k, task in enumerate(tasks):
        number = task.get("id", k) if isinstance(task, dict) else k
        where = f"Label Studio's task {shown(number)}"
        try:
            example = _example(typed(task, dict, where), config, where)
        except DataError as error:
            logger.warning("%s: the task is no example", error)
            continue
        if example is not None:
            found.append(example)
    return found


def _example(task: dict[str, Any], config: LabelConfig, where: str) -> Example | None:
    made = chosen_annotation(task.get("annotations"), where)
    if made is None:
        return None
    number = field(task, "id", int, where)
    address = field(field(task, "data", dict, where), config.key, str, where)
    given = [
        typed(item, dict, f"{where}, region {k}") for k, item in enumerate(field(made, "result", list, where))
    ]
    regions = [item for item in given if item.get("to_name") == config.to_name]
    kept = [item for item in regions if _usable(item, config)]
    left_out = Counter(str(item.get("type")) for item in regions if not _usable(item, config))
    if left_out:
        logger.warning(
            "%s: left out are %s; accepted are brushes, polygons, ellipses and rectangles of the labels of "
            "%s: %s",
            where,
            ", ".join(f"{count} x {kind}" for kind, count in sorted(left_out.items())),
            config.from_name,
            "the task is used without them" if kept else "the task is no example",
        )
        if not kept:
            return None  # there is something on it: it is no negative
    content = json.dumps([number, address, kept], sort_keys=True)
    return Example(
        task=number,
        address=address,
        regions=kept,
        labels=frozenset(label for item in kept for label in labels_of(item))
        - BACKGROUND_NAMES
        - IGNORE_NAMES,
        changed=changed_at(made),
        fingerprint=hashlib.sha256(content.encode()).hexdigest(),
    )


def _usable(item: dict[str, Any], config: LabelConfig) -> bool:
    """Whether a region is of a kind and of labels that count."""
    known = {*config.labels, *BACKGROUND_NAMES, *IGNORE_NAMES}
    return item.get("type") != _KEY_POINTS and (not config.labels or known.issuperset(labels_of(item)))


def newest(examples: Iterable[Example], shots: int) -> list[Example]:
    """Returns the examples that are among the newest ``shots`` of a class, or of those that show none.

    Returns:
        In the order of the tasks.
    """
    taken: Counter[str] = Counter()
    kept = []
    for example in sorted(examples, key=lambda e: (e.changed, e.task), reverse=True):
        shown_on = example.labels or {_NEGATIVE}
        if any(taken[label] < shots for label in shown_on):
            taken.update(shown_on)
            kept.append(example)
    return sorted(kept, key=lambda e: e.task)


UNREAD, WITHOUT = "fewseg-unread", "fewseg-no-examples"
_OLD = 30.0  # seconds; Label Studio's webhooks may be blocked, so that it is asked again without one


@dataclass(frozen=True, kw_only=True)
class Ready:
    """What predictions are made with.

    Attributes:
        version: of the predictions.
        config: where they go.
        session: the supports with their encoded state; None where there is no support.
    """

    version: str
    config: LabelConfig
    session: Session | None


class Project:
    """What the server knows of a project; any number of threads may use it.

    The image of an annotation that has been read is taken to stay as it is.

    Args:
        number: its id.
        client: reads it.
        images: encodes its images.
        shots: the newest so many annotated tasks of each class are supports.
        budget: bytes of supports.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        number: int,
        client: StudioClient,
        images: EncodedImages,
        shots: int,
        budget: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.number = number
        self._client, self._images, self._shots, self._budget, self._clock = (
            client,
            images,
            shots,
            budget,
            clock,
        )
        self._looking, self._encoding = threading.Lock(), threading.Lock()
        self._text = ""
        self._config: LabelConfig | None = None
        self._marks, self._seen, self._looked = 1, 0, 0.0
        self._examples: list[Example] = []
        self._failed: frozenset[str] = frozenset()
        self._unanswered, self._tried = False, 0.0
        self._made: dict[str, SupportImage] = {}
        self._ready: Ready | None = None

    @property
    def config(self) -> LabelConfig:
        """The labelling configuration.

        Raises:
            Refused: 409, Label Studio has not told it.
        """
        if self._config is None:
            raise Refused(409, f"project {self.number} has no labelling configuration yet: connect it again")
        return self._config

    def configure(self, text: str) -> None:
        """Takes a labelling configuration.

        Raises:
            DataError: it has no place for masks.
        """
        if text != self._text:
            self._config = read_label_config(text)
            self._text = text
            self.mark()

    def mark(self) -> None:
        """Has the annotations looked at before the next prediction, and images that failed tried again."""
        self._marks += 1

    @property
    def version(self) -> str:
        """Changes whenever predictions may: Label Studio asks for those of another version only."""
        return self._version(self._examples, self._failed, self.config) if self._seen else UNREAD

    def _version(self, examples: list[Example], failed: frozenset[str], config: LabelConfig) -> str:
        usable = [e.fingerprint for e in examples if e.fingerprint not in failed]
        if not usable:
            return WITHOUT
        key = hashlib.sha256(repr([self._images.model.digest, asdict(config), usable]).encode())
        return f"fewseg-{key.hexdigest()[:12]}"

    def look(self) -> None:
        """Reads the annotations where they may have changed; no image and no network pass.

        Raises:
            Refused: 502, Label Studio does not give them.
        """
        with self._looking:
            marks, fresh = self._marks, self._clock() - self._looked < _OLD
            if self._seen == marks and fresh:
                return
            found = newest(read_examples(self._client.tasks(self.number), self.config), self._shots)
            if self._seen != marks:
                self._failed = frozenset()
            self._examples, self._seen, self._looked = found, marks, self._clock()

    def ready(self) -> Ready:
        """Returns what to predict with.

        Only annotations that are new or changed are read, and only images that are not known encoded.

        Raises:
            Refused: 409 or 502, Label Studio has not given the configuration, or does not the annotations.
        """
        with self._encoding:
            self.look()
            examples, config = self._examples, self.config  # another thread may look again meanwhile
            version = self._version(examples, self._failed, config)
            again = self._unanswered and self._looked > self._tried  # of that no event comes
            known = self._ready
            if known is not None and (known.version, known.config, again) == (version, config, False):
                return known
            self._tried = self._looked
            self._made = shots = self._shots_of(examples)
            supports = _joined([shots[e.fingerprint] for e in examples if e.fingerprint in shots])
            self._failed = frozenset(e.fingerprint for e in examples) - shots.keys()
            session = None
            if supports.classes:
                with self._images.compute:
                    session = Session(self._images.model, supports)
            logger.info(
                "project %d: %d annotated tasks, classes %s", self.number, len(shots), list(supports.classes)
            )
            version = self._version(examples, self._failed, config)
            self._ready = Ready(version=version, config=config, session=session)
            return self._ready

    def _shots_of(self, examples: list[Example]) -> dict[str, SupportImage]:
        """Fingerprint -> support, the newest first where there is no room for all."""
        found: dict[str, SupportImage] = {}
        used, self._unanswered = 0, False
        for example in sorted(examples, key=lambda e: e.changed, reverse=True):
            shot = self._made.get(example.fingerprint)
            try:
                shot = self._shot(example) if shot is None else shot
            except (DataError, Refused) as error:
                logger.warning("project %d, task %d is no example: %s", self.number, example.task, error)
                self._unanswered |= isinstance(error, Refused) and error.status == httpx.codes.BAD_GATEWAY
                continue
            used += shot.image.nbytes
            if used > self._budget:
                logger.warning(
                    "project %d: %d of %d annotated tasks are examples, which fill %.0f MiB; raise "
                    "--session-mib, or lower --label-studio-shots",
                    self.number,
                    len(found),
                    len(examples),
                    self._budget / MIB,
                )
                break
            found[example.fingerprint] = shot
        return found

    def _shot(self, example: Example) -> SupportImage:
        where = f"task {example.task}"
        image = self._images.encode(self._client.image(example.address), f"of {where}")
        masks = drawn(example.regions, image.size, where, ReadOptions()).masks()
        return SupportImage(
            image=image,
            masks={name: view_masks(torch.from_numpy(mask), image.windows) for name, mask in masks.items()},
        )


def _joined(shots: list[SupportImage]) -> SupportSet:
    """A support set of the classes that at least one image shows."""
    supports = SupportSet()
    for shot in shots:
        supports = supports.added(shot.image, shot.masks)
    for name in supports.classes:
        if not supports.positives(name):
            supports = supports.without(name)
    return supports


_PROJECTS = 16
_PATIENCE = 2.0  # seconds; Label Studio waits three for an answer to /setup
_NAMED = re.compile(r"(\d{1,18})(\.\d+)?")  # the id and when it was made
_CHANGING = re.compile(r"ANNOTATIONS?_(CREATED|UPDATED|DELETED)|TASKS_DELETED|PROJECT_UPDATED|START_TRAINING")


@dataclass(frozen=True, kw_only=True)
class StudioOptions:
    """Whose ML backend to be, and how.

    Attributes:
        account: of the Label Studio server.
        shots: the newest so many annotated tasks of each class are supports.
        transport: in place of the network.
    """

    account: Account
    shots: int = 10
    transport: httpx.BaseTransport | None = None

    def __post_init__(self) -> None:
        if self.shots < 1:
            raise ValueError(
                f"--label-studio-shots is {self.shots}; accepted are 1 and more annotated tasks a class"
            )

    def backend(
        self, model: Model, limits: Limits, compute: threading.Lock, judging: threading.Lock
    ) -> Backend:
        """Returns what answers; the locks are those of ``Workspace``."""
        client = StudioClient(self.account, limits.upload_bytes, self.transport)
        images = EncodedImages(model, limits.pixels, limits.session_bytes, compute)
        return Backend(client, images, limits, self.shots, judging)


class Backend:
    """The projects of a Label Studio server.

    Args:
        client: reads it.
        images: encodes images, and keeps them.
        limits: of the server.
        shots: the newest so many annotated tasks of each class are supports.
        judging: held while a task is predicted and judged, so that the masks of the page do not wait for it.
    """

    def __init__(
        self,
        client: StudioClient,
        images: EncodedImages,
        limits: Limits,
        shots: int,
        judging: threading.Lock,
    ) -> None:
        self._client, self._images, self._limits, self._shots = client, images, limits, shots
        self._lock, self._judging = threading.Lock(), judging
        self._projects: OrderedDict[int, Project] = OrderedDict()
        self._readers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="label-studio")

    @property
    def name(self) -> str:
        """Of the model."""
        return self._images.model.name

    @property
    def versions(self) -> list[str]:
        """Of all projects' predictions."""
        with self._lock:
            return sorted({project.version for project in self._projects.values()})

    def _project(self, named: object) -> Project:
        """Returns a project by Label Studio's name of it, ``<id>.<time>``."""
        match = _NAMED.fullmatch(named) if isinstance(named, str) else None
        if match is None:
            raise DataError(f"the project is {shown(named)}; accepted is its id, a point and a time")
        number = int(match[1])
        with self._lock:
            if number not in self._projects:
                self._projects[number] = Project(
                    number, self._client, self._images, self._shots, self._limits.session_bytes
                )
            self._projects.move_to_end(number)
            while len(self._projects) > _PROJECTS:
                self._projects.popitem(last=False)
            return self._projects[number]

    def setup(self, request: Mapping[str, Any]) -> str:
        """Takes a project's labelling configuration and returns the version of its predictions.

        The address and the token that the request brings are not used: where to read is this server's own
        setting.

        Raises:
            DataError: the request or the configuration is not accepted.
            Refused: 502, Label Studio does not give the annotations.
        """
        project = self._project(request.get("project"))
        project.configure(field(request, "schema", str, "the request"))
        waited = self._readers.submit(project.look)
        try:
            waited.result(_PATIENCE)
        except TimeoutError:
            logger.info("project %d: its annotations are still being read", project.number)
        return project.version

    def predict(self, request: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """Predicts tasks.

        Returns:
            The version, and for each task its prediction: empty, with the score 0, while nothing is
            annotated; an empty list, which Label Studio does not keep, where the image cannot be used.

        Raises:
            DataError: the request or the configuration is not accepted.
            Refused: 502, Label Studio does not give the annotations.
        """
        tasks = field(request, "tasks", list, "the request")
        project = self._project(request.get("project"))
        config = request.get("label_config")
        if config:
            project.configure(typed(config, str, "the request: 'label_config'"))
        ready = project.ready()
        if ready.session is None:
            logger.warning(
                "project %d: %d tasks get empty predictions, as no task is annotated with a label of %s yet: "
                "annotate one",
                project.number,
                len(tasks),
                ready.config.from_name,
            )
            empty = {"result": [], "score": 0.0, "model_version": ready.version}
            return ready.version, [empty for _ in tasks]
        return ready.version, [self._predicted(task, ready, ready.session) for task in tasks]

    def _predicted(self, task: object, ready: Ready, session: Session) -> Any:
        number = task.get("id") if isinstance(task, dict) else None
        where, config = f"Label Studio's task {shown(number)}", ready.config
        try:
            data = field(typed(task, dict, where), "data", dict, where)
            content = self._client.image(field(data, config.key, str, f"{where}: data"))
            image = self._images.encode(content, f"of {where}")
            with self._judging:
                found = session.segment(image)
        except (DataError, Refused) as error:
            logger.warning("%s gets no prediction: %s", where, error)
            return []
        return label_studio_prediction(
            found.prediction(f"task-{number}"), config.from_name, config.to_name, ready.version, config.tool
        )

    def webhook(self, request: Mapping[str, Any]) -> bool:
        """Has a project's annotations read again where an event says that they changed.

        Nothing else of the event is used, so that a false one does no harm.

        Returns:
            Whether it was such an event.
        """
        action, told = request.get("action"), request.get("project")
        if not isinstance(action, str) or not _CHANGING.fullmatch(action):
            return False
        number = told.get("id") if isinstance(told, dict) else None
        with self._lock:
            for project in self._projects.values():
                if number in (None, project.number):
                    project.mark()
        return True


_EVENT_BYTES = MIB
_AT_ONCE = 8  # answers; each may wait for Label Studio, in a thread that the page does not need

_basic = HTTPBasic(auto_error=False, realm="fewseg")


def studio_router(backend: Backend, account: Account, body_bytes: int) -> APIRouter:
    """Returns the protocol's addresses.

    Args:
        backend: that answers.
        account: with the user that Label Studio must give, except to ``/webhook``: Label Studio sends none
            there, and an event only has annotations read again.
        body_bytes: larger requests are refused.
    """
    router, threads = APIRouter(), CapacityLimiter(_AT_ONCE)

    async def allowed(given: Annotated[HTTPBasicCredentials | None, Depends(_basic)]) -> None:
        wanted = f"{account.user or ''}:{account.password or ''}"
        if account.user and (given is None or not _same(f"{given.username}:{given.password}", wanted)):
            raise Refused(
                401,
                "user or password are wrong: give Label Studio BASIC_AUTH_USER and BASIC_AUTH_PASS of here",
            )

    inside = [Depends(allowed)]

    @router.get("/health", dependencies=inside)
    async def health() -> dict[str, str]:
        return {"status": "UP", "model_class": f"fewseg {backend.name}"}

    @router.post("/setup", dependencies=inside)
    async def setup(request: Request) -> JSONResponse:
        version = await _answered(backend.setup, await _body(request, body_bytes), threads)
        return _kept_by_nobody({"model_version": version})

    @router.post("/predict", dependencies=inside)
    async def predict(request: Request) -> JSONResponse:
        version, results = await _answered(backend.predict, await _body(request, body_bytes), threads)
        return _kept_by_nobody({"results": results, "model_version": version})

    @router.get("/versions", dependencies=inside)
    async def versions() -> JSONResponse:
        return _kept_by_nobody({"versions": backend.versions})

    @router.post("/webhook")
    async def webhook(request: Request) -> dict[str, bool]:
        return {"stale": backend.webhook(await _event(request))}

    return router


def _same(given: str, wanted: str) -> bool:
    return secrets.compare_digest(given.encode(), wanted.encode())


def _kept_by_nobody(content: dict[str, Any]) -> JSONResponse:
    return JSONResponse(content, headers={"Cache-Control": "no-store"})


async def _body(request: Request, limit: int) -> dict[str, Any]:
    content = await read_body(request, limit)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused(422, f"the request is no JSON ({error}); accepted is Label Studio's own") from error
    return typed(value, dict, "the request")


async def _event(request: Request) -> dict[str, Any]:
    """An event; of one that is too long to be worth reading, that something changed somewhere."""
    try:
        return await _body(request, _EVENT_BYTES)
    except Refused as error:
        if error.status != httpx.codes.REQUEST_ENTITY_TOO_LARGE:
            raise
        return {"action": "ANNOTATION_UPDATED"}


async def _answered(work: Any, request: dict[str, Any], threads: CapacityLimiter) -> Any:
    """Runs an answer in a thread; a refusal goes to the log too, as Label Studio shows its status alone."""
    try:
        return await run_sync(work, request, limiter=threads)
    except (DataError, Refused) as error:
        logger.error("Label Studio is refused: %s", error)
        raise
