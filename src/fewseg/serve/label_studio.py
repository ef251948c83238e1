"""Label Studio's ML backend on the server of the page: annotated tasks in, predictions of the others out."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import httpx
import torch
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from fastapi import APIRouter, Depends, Request

from fewseg.annotations.image_files import read_rgb
from fewseg.annotations.json_values import field, shown, typed
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
from fewseg.inference.images import FirstRange
from fewseg.inference.model import EncodedImage
from fewseg.inference.segmentation import Session
from fewseg.inference.supports import SupportImage, SupportSet
from fewseg.ops.files import parse_json
from fewseg.serve.label_studio_client import StudioClient, StudioSettings
from fewseg.serve.limits import MIB, Bodies, Limits, RequestError, basic_credentials
from fewseg.serve.pages import SharedModel, pixel_count
from fewseg.types import DataError

logger = logging.getLogger(__name__)

# ---- the labelling configuration

_LONGEST_CONFIG = 2**20
_TOOLS: dict[str, Tool] = {"BrushLabels": "brushlabels", "PolygonLabels": "polygonlabels"}  # best first
_EXPECTED = (
    "it must have an <Image> and a <BrushLabels> or <PolygonLabels> for it: add one in the project's settings"
)


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """What segmentation needs of a labelling configuration."""

    from_name: str  # of the tag that takes the predictions
    to_name: str  # of its image tag
    key: str  # of the image's address in a task's data
    tool: Tool  # what the tag draws with
    labels: tuple[str, ...]  # of the tag; empty where they come with each task


def read_label_config(text: str) -> LabelConfig:
    """Reads a configuration: of the tags that can take masks a brush is preferred, then the first.

    Document type declarations, and so entities of any kind, are refused.
    """
    if len(text) > _LONGEST_CONFIG:
        raise DataError(
            f"a labelling configuration must have at most {_LONGEST_CONFIG} characters, got {len(text)}"
        )
    try:
        root: Element = fromstring(text, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, RecursionError) as error:
        raise DataError(f"the labelling configuration is not plain XML ({error}); {_EXPECTED}") from error
    images = {tag.get("name", ""): tag.get("value", "").removeprefix("$") for tag in root.iter("Image")}
    for name, tool in _TOOLS.items():
        for tag in root.iter(name):
            control, image = tag.get("name", ""), tag.get("toName", "")
            if control and images.get(image):
                given = [label.get("alias") or label.get("value") or "" for label in tag.iter("Label")]
                labels = tuple(dict.fromkeys(label for label in given if label and label[0] != "$"))
                return LabelConfig(
                    from_name=control, to_name=image, key=images[image], tool=tool, labels=labels
                )
    tags = sorted({tag.tag for tag in root.iter() if isinstance(tag.tag, str)})
    raise DataError(f"the labelling configuration has the tags {shown(tags)}; {_EXPECTED}")


# ---- annotated tasks

_KEY_POINTS = "keypointlabels"
_NEGATIVE = ""  # stands for the class of images that show none


@dataclass(frozen=True, kw_only=True)
class Example:
    """An annotated task."""

    task: int  # its id
    address: str  # of its image
    regions: Sequence[dict[str, Any]]  # of the annotation that counts; empty on a negative
    labels: frozenset[str]  # of the regions
    changed: float  # seconds since 1970
    digest: str  # of everything but the time


def read_examples(tasks: Sequence[Any], config: LabelConfig) -> list[Example]:
    """The annotated tasks of an export; an invalid one is left out with a warning in the log.

    Of several annotations of a task the ground truth counts, else the latest that was not cancelled.
    """
    examples = []
    for k, task in enumerate(tasks):
        number = task.get("id", k) if isinstance(task, dict) else k
        where = f"Label Studio's task {shown(number)}"
        try:
            example = _example(typed(task, dict, where), config, where)
        except DataError as error:
            logger.warning("%s: the task is not used as an example", error)
            continue
        if example is not None:
            examples.append(example)
    return examples


def _example(task: dict[str, Any], config: LabelConfig, where: str) -> Example | None:
    annotation = chosen_annotation(task.get("annotations"), where)
    if annotation is None:
        return None
    number = field(task, "id", int, where)
    address = field(field(task, "data", dict, where), config.key, str, where)
    items = enumerate(field(annotation, "result", list, where))
    regions = [typed(item, dict, f"{where}, region {k}") for k, item in items]
    regions = [item for item in regions if item.get("to_name") == config.to_name]
    usable = [item for item in regions if _is_usable(item, config)]
    left_out = Counter(str(item.get("type")) for item in regions if not _is_usable(item, config))
    if left_out:
        logger.warning(
            "%s: %s are left out; regions must be brushes, polygons, ellipses or rectangles with labels of "
            "%s: the task is %s",
            where,
            ", ".join(f"{count} x {kind}" for kind, count in sorted(left_out.items())),
            config.from_name,
            "used without them" if usable else "not used as an example",
        )
        if not usable:
            return None  # the image shows something: it is not a negative
    content = json.dumps([number, address, usable], sort_keys=True)
    labels = frozenset(label for item in usable for label in labels_of(item))
    return Example(
        task=number,
        address=address,
        regions=usable,
        labels=labels - BACKGROUND_NAMES - IGNORE_NAMES,
        changed=changed_at(annotation),
        digest=hashlib.sha256(content.encode()).hexdigest(),
    )


def _is_usable(item: dict[str, Any], config: LabelConfig) -> bool:
    """Whether a region is of a kind and of labels that can be used."""
    known = {*config.labels, *BACKGROUND_NAMES, *IGNORE_NAMES}
    return item.get("type") != _KEY_POINTS and (not config.labels or known.issuperset(labels_of(item)))


def newest(examples: Iterable[Example], shots: int) -> list[Example]:
    """The examples that are among the newest ``shots`` of a class, or of the negatives; in order of tasks."""
    count: Counter[str] = Counter()
    chosen = []
    for example in sorted(examples, key=lambda e: (e.changed, e.task), reverse=True):
        classes = example.labels or {_NEGATIVE}
        if any(count[label] < shots for label in classes):
            count.update(classes)
            chosen.append(example)
    return sorted(chosen, key=lambda e: e.task)


# ---- projects

_NOT_READ, _NO_EXAMPLES = "fewseg-unread", "fewseg-no-examples"  # versions
_OLD = 30.0  # seconds; webhooks may be blocked, so annotations are read again without one
_LATER = (httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE)  # an image may come, or be decoded, yet
_PROJECTS = 16
_PATIENCE = 2.0  # seconds; Label Studio waits three for an answer to /setup
_PROJECT_NAME = re.compile(r"(\d{1,18})(\.\d+)?")  # the id and when it was made
_CHANGING = re.compile(r"ANNOTATIONS?_(CREATED|UPDATED|DELETED)|TASKS_DELETED|PROJECT_UPDATED|START_TRAINING")


class ImageCache:
    """Encoded images by the content of their files, within a budget of bytes; the longest unused go first."""

    def __init__(self, shared: SharedModel, pixels: int, budget: int) -> None:
        self.shared, self.pixels, self.budget = shared, pixels, budget
        self._images: OrderedDict[bytes, EncodedImage] = OrderedDict()
        self._lock = threading.Lock()
        self.nbytes = 0

    def claim(self, image: EncodedImage) -> AbstractContextManager[None]:
        """Claims the memory to work on masks of an image."""
        return self.shared.decoding.claim(image.size[0] * image.size[1])

    def encode(self, content: bytes, what: str, values: FirstRange) -> EncodedImage:
        """An image file, encoded; errors call it ``what``."""
        shared = self.shared
        with self._lock, ExitStack() as claim:  # no other thread encodes it too, and counts it twice
            claim.enter_context(shared.decoding.claim(pixel_count(content, self.pixels)))
            own = values.of(content, self.pixels)
            key = hashlib.sha256(content + repr(own).encode()).digest()
            if key in self._images:
                self._images.move_to_end(key)
                return self._images[key]
            prepared = shared.model.prepare(read_rgb(what, self.pixels, own, content))
            self._images[key] = encoded = shared.encode(prepared, claim)
            self.nbytes += encoded.nbytes
            while self.nbytes > self.budget:
                self.nbytes -= self._images.popitem(last=False)[1].nbytes
        return encoded


@dataclass(frozen=True, kw_only=True)
class ProjectSession:
    """What a project's tasks are predicted with; without a session where there is no support."""

    version: str
    config: LabelConfig
    session: Session | None


class Project:
    """What the server knows of a project; any number of threads may use it.

    The image of an annotation that has been read is assumed not to change.
    """

    def __init__(self, number: int, client: StudioClient, images: ImageCache, shots: int) -> None:
        self.number, self._shots, self.values = number, shots, FirstRange()
        self._client, self._images = client, images
        self._reading, self._encoding = threading.Lock(), threading.Lock()
        self._config_text = ""
        self._config: LabelConfig | None = None
        self._events, self._events_read, self._read_at = 1, 0, 0.0
        self._examples: list[Example] = []
        self._supports: dict[str, SupportImage] = {}  # by digest of their examples
        self._failed: frozenset[str] = frozenset()  # digests
        self._unanswered, self._encoded_at = False, 0.0
        self._session: ProjectSession | None = None

    @property
    def config(self) -> LabelConfig:
        """The labelling configuration."""
        if self._config is None:
            raise RequestError(
                409, f"project {self.number} has no labelling configuration yet: connect it again"
            )
        return self._config

    def configure(self, text: str) -> None:
        """Sets the labelling configuration."""
        if text != self._config_text:
            self._config = read_label_config(text)
            self._config_text = text
            self.invalidate()

    def invalidate(self) -> None:
        """Has annotations read before the next prediction, and images that failed tried again."""
        self._events += 1

    @property
    def version(self) -> str:
        """Changes whenever predictions may: Label Studio requests those of other versions only."""
        return self._version(self._examples, self._failed, self.config) if self._events_read else _NOT_READ

    def _version(self, examples: list[Example], failed: frozenset[str], config: LabelConfig) -> str:
        usable = [e.digest for e in examples if e.digest not in failed]
        if not usable:
            return _NO_EXAMPLES
        key = repr([self._images.shared.model.digest, asdict(config), usable])
        return f"fewseg-{hashlib.sha256(key.encode()).hexdigest()[:12]}"

    def read_annotations(self) -> None:
        """Reads the annotations where they may have changed; no image and no network pass."""
        with self._reading:
            events, fresh = self._events, time.monotonic() - self._read_at < _OLD
            if self._events_read == events and fresh:
                return
            examples = newest(read_examples(self._client.tasks(self.number), self.config), self._shots)
            if self._events_read != events:
                self._failed = frozenset()
            self._examples, self._events_read, self._read_at = examples, events, time.monotonic()

    def session(self) -> ProjectSession:
        """What to predict with; encodes new and changed annotations and images that are not cached."""
        with self._encoding:
            self.read_annotations()
            examples, config = self._examples, self.config  # another thread may read again meanwhile
            version = self._version(examples, self._failed, config)
            retry = self._unanswered and self._read_at > self._encoded_at  # no event reports that it is back
            known = self._session
            if known is not None and not retry and (known.version, known.config) == (version, config):
                return known
            self._encoded_at = self._read_at
            self._supports = shots = self._encode(examples)
            supports = _support_set([shots[e.digest] for e in examples if e.digest in shots])
            self._failed = frozenset(e.digest for e in examples) - shots.keys()
            session = self._images.shared.session(supports, known.session if known else None)
            logger.info(
                "project %d: %d annotated tasks, classes %s", self.number, len(shots), list(supports.classes)
            )
            version = self._version(examples, self._failed, config)
            self._session = ProjectSession(version=version, config=config, session=session)
            return self._session

    def _encode(self, examples: list[Example]) -> dict[str, SupportImage]:
        """Digest -> support, of the newest examples within the budget."""
        supports: dict[str, SupportImage] = {}
        used, self._unanswered = 0, False
        for example in sorted(examples, key=lambda e: e.changed, reverse=True):
            try:
                shot = self._supports.get(example.digest) or self._support(example)
            except (DataError, RequestError) as error:
                logger.warning(
                    "project %d, task %d is not used as an example: %s", self.number, example.task, error
                )
                self._unanswered |= getattr(error, "status", None) in _LATER
                continue
            used += shot.image.nbytes
            if used > self._images.budget:
                logger.warning(
                    "project %d: %d of %d annotated tasks are used as examples, as they fill %.0f MiB; raise "
                    "--session-mib, or lower --label-studio-shots",
                    self.number,
                    len(supports),
                    len(examples),
                    self._images.budget / MIB,
                )
                break
            supports[example.digest] = shot
        return supports

    def _support(self, example: Example) -> SupportImage:
        where = f"task {example.task}"
        image = self._images.encode(self._client.image(example.address), f"of {where}", self.values)
        with self._images.claim(image):
            masks = drawn(example.regions, image.size, where, ReadOptions()).annotated(Path(where)).masks
            return SupportImage.of(image, {name: torch.from_numpy(mask) for name, mask in masks.items()})


def _support_set(shots: list[SupportImage]) -> SupportSet:
    """The supports of the classes that at least one image shows."""
    supports = SupportSet()
    for shot in shots:
        supports = supports.added(shot)
    for name in supports.classes:
        if not supports.positives(name):
            supports = supports.without(name)
    return supports


class Backend:
    """The projects of a Label Studio server, and the answers to its requests."""

    def __init__(self, settings: StudioSettings, shared: SharedModel, limits: Limits) -> None:
        self._client = StudioClient(settings, limits.upload_bytes)
        self._images = ImageCache(shared, limits.pixels, limits.session_bytes)
        self._shots, self._judging = settings.shots, shared.judging
        self._lock = threading.Lock()
        self._projects: OrderedDict[int, Project] = OrderedDict()
        self._events: deque[float] = deque(maxlen=_EVENTS_A_MINUTE)  # when the last ones came
        self._readers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="label-studio")

    @property
    def versions(self) -> list[str]:
        """Of all projects' predictions."""
        with self._lock:
            return sorted({project.version for project in self._projects.values()})

    def _project(self, name: object) -> Project:
        """A project by Label Studio's name of it, ``<id>.<time>``."""
        match = _PROJECT_NAME.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            raise DataError(f"the project must be its id, a point and a time, got {shown(name)}")
        number = int(match[1])
        with self._lock:
            if number not in self._projects:
                self._projects[number] = Project(number, self._client, self._images, self._shots)
            self._projects.move_to_end(number)
            while len(self._projects) > _PROJECTS:
                self._projects.popitem(last=False)
            return self._projects[number]

    def setup(self, request: Mapping[str, Any]) -> str:
        """Sets a project's labelling configuration and returns the version of its predictions.

        The address and the token in the request are not used: where to read is this server's own setting.
        """
        project = self._project(request.get("project"))
        project.configure(field(request, "schema", str, "the request"))
        reading = self._readers.submit(project.read_annotations)
        try:
            reading.result(_PATIENCE)
        except TimeoutError:
            logger.info("project %d: its annotations are still being read", project.number)
        return project.version

    def predict(self, request: Mapping[str, Any]) -> tuple[str, list[Any]]:
        """The version, and a prediction for each task.

        It is empty, with the score 0, while nothing is annotated, and an empty list, which Label Studio does
        not keep, where the image cannot be used.
        """
        tasks = field(request, "tasks", list, "the request")
        project = self._project(request.get("project"))
        config = request.get("label_config")
        if config:
            project.configure(typed(config, str, "the request: 'label_config'"))
        known = project.session()
        if known.session is None:
            logger.warning(
                "project %d: %d tasks get empty predictions, as no task is annotated with a label of %s yet: "
                "annotate one",
                project.number,
                len(tasks),
                known.config.from_name,
            )
            empty = {"result": [], "score": 0.0, "model_version": known.version}
            return known.version, [empty for _ in tasks]
        return known.version, [self._predict(task, known, known.session, project.values) for task in tasks]

    def _predict(self, task: object, known: ProjectSession, session: Session, values: FirstRange) -> Any:
        number = task.get("id") if isinstance(task, dict) else None
        where, config = f"Label Studio's task {shown(number)}", known.config
        try:
            data = field(typed(task, dict, where), "data", dict, where)
            content = self._client.image(field(data, config.key, str, f"{where}: data"))
            image = self._images.encode(content, f"of {where}", values)
            with self._judging:
                answer = session.segment(image)
            with self._images.claim(image):
                prediction = answer.prediction(f"task-{number}")
                return label_studio_prediction(
                    prediction, config.from_name, config.to_name, known.version, config.tool
                )
        except (DataError, RequestError) as error:
            logger.warning("%s gets no prediction: %s", where, error)
            return []

    def count_event(self) -> None:
        """Refuses an event where too many came within a minute."""
        now = time.monotonic()
        if len(self._events) == _EVENTS_A_MINUTE and now - self._events[0] < _MINUTE:
            raise RequestError(429, f"at most {_EVENTS_A_MINUTE} events a minute are read: send fewer")
        self._events.append(now)

    def webhook(self, event: Mapping[str, Any]) -> bool:
        """Has a project's annotations read again after a change, and returns whether the event is of one."""
        action, project = event.get("action"), event.get("project")
        if not isinstance(action, str) or not _CHANGING.fullmatch(action):
            return False
        number = project.get("id") if isinstance(project, dict) else None
        with self._lock:
            for known in self._projects.values():
                if number in (None, known.number):
                    known.invalidate()
        return True


# ---- the protocol in HTTP

_EVENT_BYTES = MIB
_MINUTE = 60.0
_EVENTS_A_MINUTE = 120  # that are read; annotations are read again without them too
_ANSWERS_AT_ONCE = 8  # each may wait for Label Studio, in a thread that the page does not need

STUDIO_PATHS = ("/health", "/setup", "/predict", "/versions", "/webhook")


def studio_router(settings: StudioSettings, shared: SharedModel, limits: Limits, bodies: Bodies) -> APIRouter:
    """The addresses of the protocol.

    All but ``/webhook`` require the user of the settings: Label Studio sends none there. An event only has
    annotations read again, and so many a minute are taken.
    """
    backend = Backend(settings, shared, limits)
    router, threads = APIRouter(), CapacityLimiter(_ANSWERS_AT_ONCE)

    async def authenticate(request: Request) -> None:
        expected = f"{settings.user}:{settings.password}".encode()
        if settings.user and not secrets.compare_digest(basic_credentials(request), expected):
            raise RequestError(
                401,
                "user or password are wrong: give Label Studio this server's BASIC_AUTH_USER and "
                "BASIC_AUTH_PASS",
            )

    async def answer(request: Request, act: Callable[[dict[str, Any]], Any]) -> Any:
        """Runs an action in a thread; a refusal is logged too, as Label Studio shows its status alone."""
        try:
            async with bodies.read(request, limits.upload_bytes) as content:
                return await run_sync(act, _object(content), limiter=threads)
        except (DataError, RequestError) as error:
            logger.error("a request of Label Studio is refused: %s", error)
            raise

    authenticated = [Depends(authenticate)]

    @router.get("/health", dependencies=authenticated)
    async def health() -> dict[str, str]:
        return {"status": "UP", "model_class": f"fewseg {shared.model.name}"}

    @router.post("/setup", dependencies=authenticated)
    async def setup(request: Request) -> dict[str, Any]:
        return {"model_version": await answer(request, backend.setup)}

    @router.post("/predict", dependencies=authenticated)
    async def predict(request: Request) -> dict[str, Any]:
        version, results = await answer(request, backend.predict)
        return {"results": results, "model_version": version}

    @router.get("/versions", dependencies=authenticated)
    async def versions() -> dict[str, Any]:
        return {"versions": backend.versions}

    @router.post("/webhook")
    async def webhook(request: Request) -> dict[str, bool]:
        backend.count_event()
        return {"stale": backend.webhook(await _event(request, bodies))}

    return router


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = parse_json(content)
    except ValueError as error:
        raise RequestError(422, f"the request must be JSON as Label Studio sends it ({error})") from error
    return typed(value, dict, "the request")


async def _event(request: Request, bodies: Bodies) -> dict[str, Any]:
    """An event; one that is too long to read counts as a change of some annotation."""
    try:
        async with bodies.read(request, _EVENT_BYTES) as content:
            return _object(content)
    except RequestError as error:
        if error.status != httpx.codes.REQUEST_ENTITY_TOO_LARGE:
            raise
        return {"action": "ANNOTATION_UPDATED"}
