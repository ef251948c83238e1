"""A model as two ONNX graphs of a fixed size: extract, and segment with the support state as input."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewseg.inference.model import Model
from fewseg.inference.session import Session
from fewseg.methods.base import FewShotSegmenter
from fewseg.ops.files import atomic_path, atomic_write_text, unwritten
from fewseg.types import Features, State

logger = logging.getLogger(__name__)

EXTRACT, SEGMENT, ABOUT = "extract.onnx", "segment.onnx", "model.json"
_OPSET = 18


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        folder: where.
        extract_error: largest difference of ONNX Runtime's maps from torch's, over their largest value.
        segment_error: the same of the logits.
    """

    folder: Path
    extract_error: float
    segment_error: float


def state_tensors(state: Any, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a state by name: ``sets``, ``guides.vectors``, ``ways.0.guides.keys`` ..."""
    if isinstance(state, Tensor):
        return {prefix: state}
    if isinstance(state, tuple):
        parts: Sequence[tuple[str, Any]] = [(str(i), part) for i, part in enumerate(state)]
    else:
        assert is_dataclass(state)
        parts = [(f.name, getattr(state, f.name)) for f in fields(state)]
    found: dict[str, Tensor] = {}
    for name, part in parts:
        found |= state_tensors(part, f"{prefix}.{name}" if prefix else name)
    return found


def with_tensors(state: Any, tensors: Mapping[str, Tensor], prefix: str = "") -> Any:
    """A state of the same form with other tensors; the inverse of ``state_tensors``."""
    if isinstance(state, Tensor):
        return tensors[prefix]
    if isinstance(state, tuple):
        return tuple(
            with_tensors(part, tensors, f"{prefix}.{i}" if prefix else str(i)) for i, part in enumerate(state)
        )
    changed = {
        f.name: with_tensors(getattr(state, f.name), tensors, f"{prefix}.{f.name}" if prefix else f.name)
        for f in fields(state)
    }
    return replace(state, **changed)


class ExtractGraph(nn.Module):
    """Images (1, 3, S, S) in [0, 1] to the maps, one output a level."""

    def __init__(self, method: FewShotSegmenter) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps in the order of their levels."""
        return tuple(self.method.extract(images).maps.values())


class SegmentGraph(nn.Module):
    """Maps and the tensors of a state to logits (1, 1 + N, S, S)."""

    def __init__(self, method: FewShotSegmenter, levels: Sequence[str], size: int, state: State) -> None:
        super().__init__()
        self.method, self.levels, self.size, self.state = method, tuple(levels), size, state

    def forward(self, *tensors: Tensor) -> Tensor:
        """The logits."""
        count = len(self.levels)
        features = Features(
            maps=dict(zip(self.levels, tensors[:count], strict=True)), image_size=(self.size, self.size)
        )
        named = dict(zip(state_tensors(self.state), tensors[count:], strict=True))
        logits: Tensor = self.method.segment(features, with_tensors(self.state, named))
        return logits


def export_onnx(model: Model, session: Session, folder: Path, tolerance: float = 1e-3) -> Exported:
    """Writes both graphs and what they are, and compares them with torch in ONNX Runtime.

    The support state's tensors are inputs: their sizes are those of the given session (N, and for some
    methods K and the foreground cells), their values are free.

    Args:
        model: what to export; it is traced at its own input size, one view at a time.
        session: gives the form of the state, and the values of the check.
        folder: for ``extract.onnx``, ``segment.onnx`` and ``model.json``.
        tolerance: largest difference that is accepted, as a share of the largest value.

    Raises:
        RuntimeError: onnx, onnxscript or onnxruntime is not installed.
        ValueError: the graphs do not give what torch gives, or an operation cannot be exported.
        OSError: the folder is not writable.
    """
    require_onnx()
    features = session.supports.shots[0].image.features.select([0])
    levels = list(features.maps)
    states = state_tensors(session.state)
    segment = SegmentGraph(model.method, levels, model.size, session.state).eval()
    inputs = (*features.maps.values(), *states.values())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritten(folder / ABOUT, error) from error
    (folder / ABOUT).unlink(
        missing_ok=True
    )  # it says that the graphs are whole, belong together and are right
    write_extract(model, folder / EXTRACT)
    _write(segment, inputs, folder / SEGMENT, [*levels, *states], ["logits"])
    extract_error = extract_difference(model, folder / EXTRACT)
    with torch.no_grad():
        names = [*levels, *states]
        segment_error = _difference(folder / SEGMENT, inputs, names, (segment(*inputs),))
    worst = max(extract_error, segment_error)
    if not worst <= tolerance:
        raise ValueError(
            f"the ONNX graphs in {folder} differ from torch by {worst:.2g} of the largest value; accepted is "
            f"{tolerance:.2g}: do not use them, and report the method and the backbone"
        )
    about = {
        "format": "fewseg-onnx-1",
        "model": model.digest,
        "model_name": model.name,
        "size": model.size,
        "levels": levels,
        "classes": list(session.supports.classes),
        "state": {name: list(value.shape) for name, value in states.items()},
        "input": "RGB in [0, 1], letterboxed top-left, padded with the ImageNet mean colour",
    }
    atomic_write_text(folder / ABOUT, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    return Exported(folder=folder, extract_error=extract_error, segment_error=segment_error)


def write_extract(model: Model, path: Path) -> None:
    """Writes the graph of ``extract`` for one view of the model's size; its outputs are the levels.

    Raises:
        RuntimeError: onnx, onnxscript or onnxruntime is not installed.
        ValueError: an operation cannot be exported.
        OSError: the file could not be written; nothing is left half.
    """
    require_onnx()
    images = _any_images(model)
    with torch.no_grad():
        levels = list(model.method.extract(images).maps)
    _write(ExtractGraph(model.method).eval(), (images,), path, ["images"], levels)


def extract_difference(model: Model, path: Path) -> float:
    """Largest difference of a graph's maps from torch's, over their largest value.

    Infinite where they are of other levels or shapes.
    """
    images = _any_images(model)
    with torch.no_grad():
        return _difference(path, (images,), ["images"], ExtractGraph(model.method)(images))


def _any_images(model: Model) -> Tensor:
    noise = torch.rand(1, 3, model.size, model.size, generator=torch.Generator().manual_seed(0))
    return noise.to(model.device)


def require_onnx() -> None:
    """Checks that the extra is there.

    Raises:
        RuntimeError: onnx, onnxscript or onnxruntime is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RuntimeError(f"{error}: ONNX needs an extra: pip install 'fewseg[onnx]'") from error


def _write(
    graph: nn.Module, inputs: tuple[Tensor, ...], path: Path, names: list[str], outputs: list[str]
) -> None:
    plain = tuple(value.detach().clone().contiguous() for value in inputs)
    with torch.no_grad(), atomic_path(path) as temporary:
        try:
            torch.onnx.export(
                graph,
                plain,
                str(temporary),
                input_names=names,
                output_names=outputs,
                opset_version=_OPSET,
                external_data=False,
                dynamo=True,
                verbose=False,
            )
        except OSError:
            raise
        except Exception as error:  # the exporter raises whatever the graph leads to, in many lines
            why = next(filter(None, map(str.strip, str(error).splitlines())), "no reason given")
            raise ValueError(
                f"{path.name}: this method cannot be exported ({type(error).__name__}: {why}); accepted "
                "are methods whose steps ONNX has: use torch"
            ) from error


def _difference(
    path: Path, inputs: tuple[Tensor, ...], names: Sequence[str], expected: tuple[Tensor, ...]
) -> float:
    """Largest difference of a graph's outputs from torch's, over their largest value; infinite of others."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = {given.name for given in session.get_inputs()}
    feed = {n: v.detach().cpu().numpy() for n, v in zip(names, inputs, strict=True) if n in wanted}
    worst, outputs = 0.0, session.run(None, feed)
    if [output.shape for output in outputs] != [tuple(true.shape) for true in expected]:
        return math.inf
    for found, true in zip(outputs, expected, strict=True):
        known = true.detach().cpu().numpy()
        worst = max(worst, float(np.abs(found - known).max() / max(1e-12, np.abs(known).max())))
    return worst
