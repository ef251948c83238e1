"""Label Studio's labelling configuration: which tag takes masks, of which image, with which labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from fewseg.data.errors import DataError
from fewseg.inference.formats.json_fields import shown
from fewseg.inference.formats.label_studio_writer import Tool

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
