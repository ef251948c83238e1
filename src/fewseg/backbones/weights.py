"""Weight files: read without running code, matched by name and shape, reported."""

from __future__ import annotations

import hashlib
import pickle
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fewseg.backbones.keys import CLASSIFIER_PREFIXES, to_timm_names, unwrap


@dataclass(frozen=True, kw_only=True)
class WeightsReport:
    """What a weight file gave to a module.

    Attributes:
        source: where the weights came from: a file's name or a published name.
        sha256: digest of the file's bytes, or of the tensors when no file was read.
        matched: keys that were loaded.
        missing: keys that the module needs and the source lacks.
        mismatched: (key, shape in the source, shape in the module).
        unexpected: keys of the source that the module does not have.
        ignored: classifier keys, which no trunk needs.
    """

    source: str
    sha256: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    unexpected: tuple[str, ...]
    ignored: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every value that the module needs was given in its shape."""
        return not self.missing and not self.mismatched

    def summary(self) -> str:
        """Returns a few lines for a log or an error message."""
        lines = [f"{self.source} (sha256 {self.sha256[:12]}): {len(self.matched)} tensors matched"]
        if self.missing:
            lines.append(f"missing: {_by_part(self.missing)}")
        if self.mismatched:
            key, came, needed = self.mismatched[0]
            lines.append(f"{len(self.mismatched)} of another shape, the first {key}: {came}, needed {needed}")
        if self.unexpected:
            lines.append(f"not used: {_by_part(self.unexpected)}")
        if self.ignored:
            lines.append(f"classifier left out: {_by_part(self.ignored)}")
        return "; ".join(lines)


def load_weights(
    module: nn.Module,
    source: str | Path | Mapping[str, Tensor],
    *,
    name: str | None = None,
    sha256: str | None = None,
) -> WeightsReport:
    """Loads weights into a module whose parameters have timm's names.

    Args:
        module: receives the values; it is unchanged when an error is raised.
        source: a .safetensors, .pth or .pt file, or a state dict. ``state_dict``, ``model`` and
            ``module.`` wrappings and the released PFENet family's stem names are understood.
        name: what the report calls the source; by default the file's name.
        sha256: digest for the report of a state dict that was read from a file.

    Returns:
        The report; ``missing`` and ``mismatched`` are empty.

    Raises:
        ValueError: the file cannot be read, holds no tensors, or lacks values that the module needs.
    """
    if isinstance(source, Mapping):
        label = name or "state dict"
        state = to_timm_names(as_state(source, label))
        digest = sha256 or state_sha256(state)
    else:
        label = name or Path(source).name
        state = to_timm_names(read_state(source))
        digest = file_sha256(source)
    needed = module.state_dict()
    report = _compare(needed, state, label, digest)
    if not report.complete:
        raise ValueError(_refusal(report, len(needed)))
    module.load_state_dict({key: state[key] for key in report.matched}, strict=False)
    return report


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Reads the tensors of a weight file; a pickle is read weights-only and never runs code.

    Raises:
        ValueError: the file is absent, of an unknown kind, damaged, holds code, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no weight file at {path}: give the path of a .safetensors, .pth or .pt file")
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise ValueError(f"cannot read weights from {path.name}: accepted are .safetensors, .pth and .pt")
    try:
        if path.suffix == ".safetensors":
            content: object = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.name} is refused: it is damaged or could run code ({_first_line(error)}); "
            "only tensors are read: save the state dict alone, best as .safetensors"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"{path.name} is damaged or cut off ({_first_line(error)}): fetch or copy it again"
        ) from error
    return as_state(content, path.name)


def as_state(content: object, label: str) -> dict[str, Tensor]:
    """Unwraps a state dict and keeps its tensors.

    Raises:
        ValueError: there are none.
    """
    inner = unwrap(content)
    tensors = inner.items() if isinstance(inner, Mapping) else ()
    state = {str(key): value for key, value in tensors if isinstance(value, Tensor)}
    if not state:
        raise ValueError(
            f"{label} holds no state dict but a {type(inner).__name__} without tensors: "
            "accepted is a mapping of parameter names to tensors, bare or under 'state_dict' or 'model'"
        )
    return state


def file_sha256(path: str | Path) -> str:
    """Returns the hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Returns the hexadecimal SHA-256 of names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _compare(
    needed: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str, sha256: str
) -> WeightsReport:
    both = [key for key in needed if key in state]
    other = [(key, tuple(state[key].shape), tuple(needed[key].shape)) for key in both]
    mismatched = tuple(entry for entry in other if entry[1] != entry[2])
    absent = [key for key in needed if key not in state]
    extra = [key for key in state if key not in needed]
    return WeightsReport(
        source=source,
        sha256=sha256,
        matched=tuple(key for key in both if state[key].shape == needed[key].shape),
        missing=tuple(key for key in absent if not key.endswith("num_batches_tracked")),
        mismatched=mismatched,
        unexpected=tuple(key for key in extra if not key.startswith(CLASSIFIER_PREFIXES)),
        ignored=tuple(key for key in extra if key.startswith(CLASSIFIER_PREFIXES)),
    )


def _refusal(report: WeightsReport, needed: int) -> str:
    if len(report.matched) < needed // 2 or report.mismatched:
        advice = "the file is of another network: give the backbone name that it was made for"
    else:
        advice = "choose levels that the file has, or a file with all of them"
    return f"weights refused, {needed} tensors are needed. {report.summary()}. What to do: {advice}"


def _by_part(keys: tuple[str, ...]) -> str:
    counts = Counter(key.split(".")[0] for key in keys)
    return ", ".join(f"{part} ({count})" for part, count in sorted(counts.items()))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
