"""Images by their content, encoded once and kept while there is room."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from fewseg.data.image_files import rgb_of_bytes
from fewseg.inference.model import EncodedImage, Model


class EncodedImages:
    """Encodes image files; any number of threads may ask.

    Args:
        model: that encodes.
        pixels: larger images are refused.
        budget: bytes of features to keep; those longest unused go first.
        compute: held while the network runs, so that memory is that of one image at a time.
    """

    def __init__(self, model: Model, pixels: int, budget: int, compute: threading.Lock) -> None:
        self.model, self.pixels, self.budget, self.compute = model, pixels, budget, compute
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, EncodedImage] = OrderedDict()
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps."""
        return self._nbytes

    def encode(self, content: bytes, what: str) -> EncodedImage:
        """Returns an image file, encoded.

        Args:
            content: its bytes; their type is told by them.
            what: what errors call it.

        Raises:
            DataError: it is no image that can be used.
        """
        key = hashlib.sha256(content).digest()
        with self.compute:
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return self._kept[key]
            pixels = rgb_of_bytes(content, what, self.pixels)
            (encoded,) = self.model.encode([self.model.prepare(pixels)])
            with self._lock:  # before another thread may encode it too, and count it twice
                self._kept[key] = encoded
                self._nbytes += encoded.nbytes
                while self._nbytes > self.budget:
                    _, gone = self._kept.popitem(last=False)
                    self._nbytes -= gone.nbytes
        return encoded
