"""A Label Studio of the size that a test needs: it answers the client's requests without a socket."""

import json

import httpx
import numpy as np

from fewseg.annotations.rle import encode_brush
from serve_page import png

URL, KEY = "http://studio.example:8080", "0123456789abcdef"
CONFIG = """<View><Image name="photo" value="$image"/>
<BrushLabels name="mask" toName="photo"><Label value="square"/><Label value="disc"/></BrushLabels></View>"""


def region(value, label, hw, tool="brushlabels", **more):
    """A region as Label Studio keeps it."""
    size = {"original_height": hw[0], "original_width": hw[1], "image_rotation": 0}
    names = {"id": f"r{label}", "type": tool, "from_name": "mask", "to_name": "photo"}
    return {**names, **size, "value": {**value, tool: [label]}, **more}


def brush(mask, label="square"):
    """A brush region of a mask (H, W) of 0 and 1."""
    return region({"format": "rle", "rle": encode_brush(mask)}, label, mask.shape)


def streamed(content):
    """An answer that comes piece by piece, as from a socket."""
    return httpx.Response(200, content=iter([content[:1000], content[1000:]]))


class StandIn:
    """Tasks by id, files by address, and the requests that came."""

    def __init__(self):
        self.tasks, self.files, self.asked = {}, {}, []
        self.key, self.access, self._minute = f"Token {KEY}", None, 0

    def task(self, number, image, *annotations):
        address = f"/data/upload/1/{number}.png"
        self.files[address] = png(image) if isinstance(image, np.ndarray) else image
        self.tasks[number] = {"id": number, "data": {"image": address}, "annotations": []}
        for result in annotations:
            self.annotate(number, result)
        return self.asking(number)

    def annotate(self, number, result, **more):
        """Adds an annotation, a minute later than the one before."""
        self._minute += 1
        made = {"id": self._minute, "updated_at": f"2026-01-01T00:{self._minute:02}:00.000000Z"}
        annotation = {"result": result, "was_cancelled": False, **made, **more}
        self.tasks[number]["annotations"].append(annotation)

    def asking(self, *numbers):
        """The tasks as a request for predictions has them."""
        return [{"id": n, "data": self.tasks[n]["data"]} for n in numbers]

    def __call__(self, request):
        self.asked.append(f"{request.method} {request.url.path}")
        if request.url.path == "/api/token/refresh/" and self.access is not None:
            assert "authorization" not in request.headers
            return streamed(json.dumps({"access": self.access}).encode())
        if request.headers.get("authorization") != self.key:
            return httpx.Response(401)
        if request.url.path == "/api/projects/1/export":
            assert dict(request.url.params) == {"exportType": "JSON", "download_all_tasks": "false"}
            annotated = [task for task in self.tasks.values() if task["annotations"]]
            return streamed(json.dumps(annotated).encode())
        answer = self.files.get(request.url.path)
        if isinstance(answer, httpx.Response):
            return answer
        return httpx.Response(404) if answer is None else streamed(answer)

    def times(self, ending):
        """How often an address was requested."""
        return sum(asked.endswith(ending) for asked in self.asked)
