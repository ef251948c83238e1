"""A model whose backbone runs in ONNX Runtime; its head, which is small, stays in torch."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewseg.data.errors import DataError
from fewseg.inference.model import Model
from fewseg.inference.onnx_export import (
    ABOUT,
    EXTRACT,
    extract_difference,
    require_onnx,
    write_extract,
)
from fewseg.types import Features


class OnnxExtract:
    """The backbone as a session of ONNX Runtime, on as many threads as torch; any number of threads may call.

    Args:
        graph: the path of ``extract.onnx``, which is read at once and may go afterwards.
    """

    def __init__(self, graph: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # threads that wait by spinning would take the cores from those that read and write
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            graph.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        self._levels = [given.name for given in self._session.get_outputs()]

    def __call__(self, views: Tensor) -> Features:
        """Runs views (n, 3, S, S) one by one: the graph is of one view."""
        maps = [self._session.run(None, {"images": view[None].numpy()}) for view in views.contiguous()]
        joined = {
            level: torch.cat([torch.from_numpy(view[k]) for view in maps])
            # one layout, that of torch's features: sums over channels do not depend on who made the maps
            .contiguous(memory_format=torch.channels_last)
            for k, level in enumerate(self._levels)
        }
        return Features(maps=joined, image_size=(int(views.shape[-2]), int(views.shape[-1])))


def on_onnx_runtime(model: Model, folder: Path | None = None, tolerance: float = 1e-3) -> Model:
    """Returns the model with its backbone in ONNX Runtime.

    Maps are the same within rounding, so that the digest is too: supports that one encoded serve the other.

    Args:
        model: on the CPU.
        folder: of ``fewseg export``; without it the graph is made here, which takes some seconds.
        tolerance: largest difference from torch that is accepted, as a share of the largest value.

    Raises:
        RuntimeError: onnx, onnxscript or onnxruntime is not installed.
        DataError: the folder holds no export, or one of another size or with other maps.
        ValueError: the model is on a GPU, cannot be exported, or the graph does not give what torch gives,
            as that of another model.
        OSError: a temporary file could not be written.
    """
    require_onnx()
    if model.device.type != "cpu":
        raise ValueError(
            f"the model is on {model.device}; ONNX Runtime is used on the CPU alone: use torch, or hide the "
            "GPU (CUDA_VISIBLE_DEVICES=)"
        )
    with tempfile.TemporaryDirectory(prefix="fewseg-") as temporary:
        if folder is not None:
            _check(model, folder)
        else:
            folder = Path(temporary)
            write_extract(model, folder / EXTRACT)
        try:
            error = extract_difference(model, folder / EXTRACT)
            extract = OnnxExtract(folder / EXTRACT)
        except Exception as problem:  # ONNX Runtime raises its own kinds for whatever is wrong with a file
            why = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
            raise DataError(f"{folder / EXTRACT} cannot be used ({why}): export it again") from problem
    if math.isinf(error):
        raise DataError(
            f"{folder / EXTRACT} was exported from another model: its maps are of other levels or shapes "
            f"than those of {model.name}: export it from this very model, or use torch"
        )
    if not error <= tolerance:
        raise ValueError(
            f"{folder / EXTRACT} differs from {model.name} in torch by {error:.2g} of the largest value; "
            f"accepted is {tolerance:.2g}: export it from this very model, or use torch"
        )
    return Model(model.method, model.config, model.size, model.views, model.name, extract)


def _check(model: Model, folder: Path) -> None:
    """Checks that a folder is an export at a model's size; whether of its weights, the comparison tells.

    Raises:
        DataError: it is none, or of another size.
    """
    path = folder / ABOUT
    try:
        about: Any = json.loads(path.read_bytes())
        wrong = not isinstance(about, dict) or about.get("format") != "fewseg-onnx-1"
    except FileNotFoundError as error:
        raise DataError(f"there is no {path}: give a folder that `fewseg export` wrote") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): export it again") from error
    if wrong or not (folder / EXTRACT).is_file():
        raise DataError(f"{folder} is no whole export: give a folder that `fewseg export` wrote")
    if about.get("size") != model.size:
        raise DataError(
            f"{folder} was exported at {about.get('size')} pixels, this model has {model.size}: export it "
            f"with --size {model.size}, or label with --size {about.get('size')}"
        )
