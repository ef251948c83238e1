"""What the server answers to Label Studio; nothing of HTTP here."""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from fewseg.data.errors import DataError
from fewseg.inference.formats.json_fields import field, shown, typed
from fewseg.inference.formats.label_studio_writer import label_studio_prediction
from fewseg.inference.model import Model
from fewseg.inference.session import Session
from fewseg.serve.encoded_images import EncodedImages
from fewseg.serve.label_studio.client import Account, StudioClient
from fewseg.serve.label_studio.project import Project, Ready
from fewseg.serve.limits import Limits, Refused

logger = logging.getLogger(__name__)

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
        """Returns a project by Label Studio's name of it, ``<id>.<time>``.

        Raises:
            DataError: it is no such name.
        """
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
