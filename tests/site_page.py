"""A page of ``fewseg report site`` as a test reads it."""

import base64
import csv
import io
from html.parser import HTMLParser

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 20
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


class Page(HTMLParser):
    """Collects elements with their text, and checks that each is closed in order."""

    VOID = ("meta", "img", "br", "input")

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        assert not self.open, f"never closed: {[e['tag'] for e in self.open]}"

    def handle_starttag(self, tag, attributes):
        parents = [*self.open]
        element = {"tag": tag, **dict(attributes), "text": "", "parents": parents}
        self.elements.append(element)
        if tag not in self.VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.elements.append({"tag": tag, **dict(attributes), "text": "", "parents": [*self.open]})

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag, **having):
        found = [e for e in self.elements if e["tag"] == tag]
        return [e for e in found if all(e.get(k) == v for k, v in having.items())]

    def downloads(self):
        """Name of each file that the page holds to its rows."""
        files = {}
        for link in self.all("a"):
            if "download" in link:
                start, content = link["href"].split(",", 1)
                assert start == "data:text/csv;base64"
                text = base64.b64decode(content).decode()
                files[link["download"]] = list(csv.DictReader(io.StringIO(text)))
        return files
