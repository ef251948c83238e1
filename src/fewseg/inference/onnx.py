"""A model as two ONNX graphs of a fixed size: extract, and segment with the support state as input."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewseg.inference.model import GUIDE, Model, refined
from fewseg.inference.options import ExportOptions
from fewseg.inference.segmentation import Session
from fewseg.inference.segmenter import segmenter_with_supports
from fewseg.methods.base import FewShotSegmenter
from fewseg.ops.files import atomic_path, atomic_write_text, naming, parse_json, temporary_folder
from fewseg.types import DataError, Features

logger = logging.getLogger(__name__)

EXTRACT, SEGMENT, ABOUT = "extract.onnx", "segment.onnx", "model.json"
_FORMAT = "fewseg-onnx-1"
_OPSET = 18


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The written export.

    Attributes:
        folder: the folder of the graphs.
        extract_error: largest difference of ONNX Runtime's maps from torch's, over their largest value.
        segment_error: the same of the logits; where edges are refined, of the probabilities, since the
            logarithms of small ones differ more.
    """

    folder: Path
    extract_error: float
    segment_error: float


def _replaced(state: Any, act: Callable[[str, Tensor], Tensor], prefix: str = "") -> Any:
    """A state of the same structure, with each tensor replaced by ``act`` of its name and value."""
    if isinstance(state, Tensor):
        return act(prefix, state)

    def part(name: object, value: Any) -> Any:
        return _replaced(value, act, f"{prefix}.{name}" if prefix else str(name))

    if isinstance(state, tuple):
        return tuple(part(i, value) for i, value in enumerate(state))
    if isinstance(state, Mapping):
        return {name: part(name, value) for name, value in state.items()}
    return replace(state, **{f.name: part(f.name, getattr(state, f.name)) for f in fields(state)})


def state_tensors(state: Any) -> dict[str, Tensor]:
    """The tensors of a state by name: ``sets``, ``guides.maps.vectors``, ``ways.0.guides.keys`` ..."""
    tensors: dict[str, Tensor] = {}
    _replaced(state, lambda name, value: tensors.setdefault(name, value))
    return tensors


def with_tensors(state: Any, tensors: Mapping[str, Tensor]) -> Any:
    """A state of the same structure with other tensors; the inverse of ``state_tensors``."""
    return _replaced(state, lambda name, _: tensors[name])


class _Graph(nn.Module):
    """A function of tensors as a module, with the method whose weights it uses."""

    def __init__(self, method: FewShotSegmenter, run: Callable[..., Any]) -> None:
        super().__init__()
        self.method, self.run = method, run
        self.eval()

    def forward(self, *tensors: Tensor) -> Any:
        return self.run(*tensors)


def _extract_graph(method: FewShotSegmenter) -> _Graph:
    """Images (1, 3, S, S) in [0, 1] to maps, one output per level."""
    return _Graph(method, lambda images: tuple(method.extract(images).maps.values()))


def _segment_graph(session: Session, size: int, levels: Sequence[str]) -> _Graph:
    """Maps and the tensors of a state to logits (1, 1 + N, S, S)."""
    names, model, choice = list(state_tensors(session.state)), session.model, session.choice

    def run(*tensors: Tensor) -> Tensor:
        count = len(levels)
        maps = dict(zip(levels, tensors[:count], strict=True))
        named = dict(zip(names, tensors[count:], strict=True))
        features = Features(maps=maps, image_size=(size, size))
        logits: Tensor = model.method.segment(features, with_tensors(session.state, named))
        if not model.refine and choice is None:
            return logits
        margins = logits[:, 1:] - logits[:, :1]
        if model.refine:
            margins = refined(margins, features, model.refine)
        if choice is not None:
            margins = margins - choice.log_odds
        return F.pad(margins, (0, 0, 0, 0, 1, 0))

    return _Graph(model.method, run)


def export(options: ExportOptions) -> Exported:
    """Writes a model as ONNX graphs and compares them with torch in ONNX Runtime.

    Args:
        options: see :class:`~fewseg.inference.ExportOptions`.

    Raises:
        RuntimeError: onnx, onnxscript or onnxruntime is not installed.
        ValueError: the graphs do not give what torch gives, or an operation cannot be exported; an option,
            the supports or the model cannot be used; the folder has a ``model.json`` of something else.
        OSError: an input does not exist, or the folder is not writable.
    """
    options.check()
    segmenter = segmenter_with_supports(
        replace(options.model, precision="fp32"), options.support, options.read
    )
    return export_onnx(segmenter.model, segmenter.session(), options.out, options.tolerance)


def export_onnx(model: Model, session: Session, folder: Path, tolerance: float = 1e-3) -> Exported:
    """Writes both graphs and their description; raises as :func:`export`.

    The support state's tensors are inputs: their sizes are those of the given session (N, and for some
    methods K and the foreground cells), their values are free. The model is traced at its own input size, one
    view at a time. Where the supports chose the method, segment is the chosen one, with its thresholds.
    """
    require_onnx()
    maps = dict(session.supports.images[0].image.features.select([0]).maps)
    if not session.model.refine:
        maps.pop(GUIDE, None)
    levels, states = list(maps), state_tensors(session.state)
    segment = _segment_graph(session, model.size, levels)
    names, inputs = [*levels, *states], (*maps.values(), *states.values())
    if (folder / ABOUT).exists() and not _is_export(_about(folder)):
        raise DataError(f"{folder / ABOUT} is not of an export of fewseg and is kept: choose another folder")
    with naming(folder / ABOUT):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ABOUT).unlink(missing_ok=True)  # its presence marks complete and correct graphs
    write_extract(model, folder / EXTRACT)
    _write(segment, inputs, folder / SEGMENT, names, ["logits"])
    extract_error = extract_difference(model, folder / EXTRACT)
    with torch.no_grad():
        segment_error = _difference(
            folder / SEGMENT, inputs, names, (segment(*inputs),), chances=bool(session.model.refine)
        )
    worst = max(extract_error, segment_error)
    if not worst <= tolerance:
        raise ValueError(
            f"the ONNX graphs in {folder} must not differ from torch by more than {tolerance:.2g} of the "
            f"largest value, got {worst:.2g}: do not use them, and report the method and the backbone"
        )
    about = {
        "format": _FORMAT,
        "model": model.digest,
        "model_name": model.name,
        "size": model.size,
        "levels": [level for level in levels if level != GUIDE],
        "classes": list(session.supports.classes),
        "state": {name: list(value.shape) for name, value in states.items()},
        "input": "RGB in [0, 1], letterboxed top-left, padded with the ImageNet mean colour",
        **({"choice": session.choice.facts()} if session.choice else {}),
        **({GUIDE: "the input times 255, rounded, uint8: an input of segment"} if GUIDE in levels else {}),
    }
    atomic_write_text(folder / ABOUT, json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    return Exported(folder=folder, extract_error=extract_error, segment_error=segment_error)


def write_extract(model: Model, path: Path) -> None:
    """Writes the graph of ``extract`` for one view of the model's size; its outputs are the levels."""
    images = _any_images(model)
    with torch.no_grad():
        levels = list(model.method.extract(images).maps)
    _write(_extract_graph(model.method), (images,), path, ["images"], levels)


def extract_difference(model: Model, path: Path) -> float:
    """Largest difference of a graph's maps from torch's over the largest value; infinite for other shapes."""
    images = _any_images(model)
    with torch.no_grad():
        return _difference(path, (images,), ["images"], _extract_graph(model.method)(images))


def _any_images(model: Model) -> Tensor:
    noise = torch.rand(1, 3, model.size, model.size, generator=torch.Generator().manual_seed(0))
    return noise.to(model.device)


def require_onnx() -> None:
    """Raises a RuntimeError if onnx, onnxscript or onnxruntime is not installed."""
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
        except Exception as error:  # the exporter raises any exception, with long messages
            cause: BaseException = error
            while cause.__cause__ is not None:  # the first of them names the operation
                cause = cause.__cause__
            why = next(filter(None, map(str.strip, str(cause).splitlines())), "no reason given")
            raise ValueError(
                f"{path.name}: this method has a step that cannot be exported ({type(cause).__name__}: {why})"
                ": use torch"
            ) from error


def _difference(
    path: Path,
    inputs: tuple[Tensor, ...],
    names: Sequence[str],
    expected: tuple[Tensor, ...],
    chances: bool = False,
) -> float:
    """Largest difference of a graph's outputs from torch's, over the largest; infinite for other shapes.

    With ``chances``, that of the softmax over the outputs' channels.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wanted = {given.name for given in session.get_inputs()}
    feed = {n: v.detach().cpu().numpy() for n, v in zip(names, inputs, strict=True) if n in wanted}
    worst, outputs = 0.0, session.run(None, feed)
    if [output.shape for output in outputs] != [tuple(true.shape) for true in expected]:
        return math.inf
    for output, true in zip(outputs, expected, strict=True):
        actual, true = torch.from_numpy(output), true.detach().cpu()
        if chances:
            actual, true = actual.softmax(dim=1), true.softmax(dim=1)
        worst = max(worst, float((actual - true).abs().max() / true.abs().max().clamp(min=1e-12)))
    return worst


class OnnxExtract:
    """The backbone in ONNX Runtime, on as many threads as torch; any number of threads may call it."""

    def __init__(self, graph: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # spinning threads would take the cores from those that read and write
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            graph.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        self._levels = [given.name for given in self._session.get_outputs()]

    def __call__(self, views: Tensor) -> Features:
        """Runs views (n, 3, S, S) one by one, as the graph takes one view."""
        maps = [self._session.run(None, {"images": view[None].numpy()}) for view in views.contiguous()]
        joined = {
            level: torch.cat([torch.from_numpy(view[k]) for view in maps])
            # the memory layout of torch's features, so that sums over channels are the same
            .contiguous(memory_format=torch.channels_last)
            for k, level in enumerate(self._levels)
        }
        return Features(maps=joined, image_size=(int(views.shape[-2]), int(views.shape[-1])))


def _about(folder: Path) -> Any:
    """The description of an export."""
    path = folder / ABOUT
    try:
        return parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"there is no {path}: give a folder that `fewseg export` wrote") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): export it to another folder") from error


def _is_export(about: Any) -> bool:
    return isinstance(about, dict) and about.get("format") == _FORMAT


def _check_size(model: Model, folder: Path) -> None:
    """Checks that a folder is an export at a model's size; the comparison checks its weights."""
    about = _about(folder)
    if not _is_export(about) or not (folder / EXTRACT).is_file():
        raise DataError(f"{folder} is not a complete export: give a folder that `fewseg export` wrote")
    if about.get("size") != model.size:
        raise DataError(
            f"{folder} was exported at {about.get('size')} pixels, this model has {model.size}: export it "
            f"with --size {model.size}, or label with --size {about.get('size')}"
        )


def on_onnx_runtime(model: Model, folder: Path | None = None, tolerance: float = 1e-3) -> Model:
    """Returns the model with its backbone in ONNX Runtime; its digest stays the same.

    Args:
        model: on the CPU.
        folder: of ``fewseg export``; without it the graph is made here, which takes some seconds.
        tolerance: largest difference of the maps from torch's, as a share of the largest value.

    Raises:
        RuntimeError: onnx, onnxscript or onnxruntime is not installed.
        DataError: the folder holds no export, or one of another size or with other maps.
        ValueError: the model is on a GPU, cannot be exported, or the graph does not give what torch gives.
        OSError: a temporary file could not be written.
    """
    require_onnx()
    if model.device.type != "cpu":
        raise ValueError(
            f"ONNX Runtime is used on the CPU alone, and the model is on {model.device}: use torch, or hide "
            "the GPU (CUDA_VISIBLE_DEVICES=)"
        )
    with temporary_folder() as temporary:
        if folder is None:
            folder = temporary
            write_extract(model, folder / EXTRACT)
        else:
            _check_size(model, folder)
        try:
            error = extract_difference(model, folder / EXTRACT)
            extract = OnnxExtract(folder / EXTRACT)
        except Exception as problem:  # ONNX Runtime raises its own exceptions for invalid files
            why = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
            raise DataError(f"{folder / EXTRACT} cannot be used ({why}): export it again") from problem
    if math.isinf(error):
        raise DataError(
            f"{folder / EXTRACT} was exported from a different model: its maps have other levels or shapes "
            f"than those of {model.name}: export it from this model, or use torch"
        )
    if not error <= tolerance:
        raise ValueError(
            f"{folder / EXTRACT} must not differ from {model.name} in torch by more than {tolerance:.2g} of "
            f"the largest value, got {error:.2g}: export it from this model, or use torch"
        )
    return replace(model, extract=extract, precision="fp32")
