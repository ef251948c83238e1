"""The supports of one project of Label Studio, kept in step with its annotations."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import httpx
import torch

from fewseg.data.errors import DataError
from fewseg.inference.formats.label_studio import drawn
from fewseg.inference.formats.values import ReadOptions
from fewseg.inference.session import Session
from fewseg.inference.supports import Shot, SupportSet
from fewseg.inference.views import view_masks
from fewseg.serve.encoded_images import EncodedImages
from fewseg.serve.label_studio.client import StudioClient
from fewseg.serve.label_studio.examples import Example, newest, read_examples
from fewseg.serve.label_studio.label_config import LabelConfig, read_label_config
from fewseg.serve.limits import MIB, Refused

logger = logging.getLogger(__name__)

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
        self._made: dict[str, Shot] = {}
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

    def _shots_of(self, examples: list[Example]) -> dict[str, Shot]:
        """Fingerprint -> support, the newest first where there is no room for all."""
        found: dict[str, Shot] = {}
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

    def _shot(self, example: Example) -> Shot:
        where = f"task {example.task}"
        image = self._images.encode(self._client.image(example.address), f"of {where}")
        masks = drawn(example.regions, image.size, where, ReadOptions()).masks()
        return Shot(
            image=image,
            masks={name: view_masks(torch.from_numpy(mask), image.windows) for name, mask in masks.items()},
        )


def _joined(shots: list[Shot]) -> SupportSet:
    """A support set of the classes that at least one image shows."""
    supports = SupportSet()
    for shot in shots:
        supports = supports.added(shot.image, shot.masks)
    for name in supports.classes:
        if not supports.positives(name):
            supports = supports.without(name)
    return supports
