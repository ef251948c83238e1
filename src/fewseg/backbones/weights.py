"""Backbone weights: published files by name or local files, with their parameters renamed to timm's."""

from __future__ import annotations

import hashlib
import pickle
import struct
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLError
from threading import Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fewseg.backbones.packaged import packaged_file, timm_names
from fewseg.backbones.resnet import RESNETS
from fewseg.errors import first_line
from fewseg.ops.geometry import IMAGENET_MEAN

_IMAGENET_STD = (0.229, 0.224, 0.225)

CLASSIFIER_PREFIXES = ("fc.", "classifier.", "head.", "pre_logits.")
"""Keys of ImageNet classifiers, which no trunk needs."""

_WRAPPERS = ("state_dict", "model")
_DEEP_LAYER0 = {
    "layer0.0": "conv1.0",
    "layer0.1": "conv1.1",
    "layer0.3": "conv1.3",
    "layer0.4": "conv1.4",
    "layer0.6": "conv1.6",
    "layer0.7": "bn1",
}
_PLAIN_LAYER0 = {"layer0.0": "conv1", "layer0.1": "bn1"}
_DEEP_FLAT = {
    "conv1": "conv1.0",
    "bn1": "conv1.1",
    "conv2": "conv1.3",
    "bn2": "conv1.4",
    "conv3": "conv1.6",
    "bn3": "bn1",
}


def released_trunk_key(key: str, *, deep_stem: bool = True) -> str:
    """Maps a trunk key of the released PFENet family to timm's name.

    That family wraps the stem as ``layer0 = Sequential(conv, bn, relu, ...)``; all other stages have
    timm's names already. Any other key comes back unchanged.

    Args:
        key: such as "layer0.3.weight" or "layer2.0.conv1.weight".
        deep_stem: three 3x3 convolutions (released PFENet and SCL) or one 7x7 (SD-AANet).
    """
    return _rename(key, _DEEP_LAYER0 if deep_stem else _PLAIN_LAYER0, depth=2)


def to_timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a file's keys, whichever of the three ways of naming the stem it uses.

    The ways: timm's (and torchvision's); ``layer0.<n>``; and the flat ``conv1, conv2, conv3`` of the
    deep-stem ImageNet files that PFENet's authors start from.
    """
    if any(key.startswith("layer0.") for key in state):
        deep = any(key.startswith("layer0.3.") for key in state)
        return {released_trunk_key(key, deep_stem=deep): value for key, value in state.items()}
    if "conv3.weight" in state:
        return {_rename(key, _DEEP_FLAT, depth=1): value for key, value in state.items()}
    return dict(state)


def _rename(key: str, names: Mapping[str, str], depth: int) -> str:
    parts = key.split(".")
    head, tail = ".".join(parts[:depth]), parts[depth:]
    return ".".join([names[head], *tail]) if head in names else key


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
    report = compare_weights(module, state, label, digest)
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
        raise ValueError(f"cannot read weights from {path.name}: it must be a .safetensors, .pth or .pt file")
    try:
        if path.suffix == ".safetensors":
            content: object = safetensors.torch.load_file(path)
        else:
            _check_stored(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.name} is refused: it is damaged or could run code ({first_line(error)}); "
            "only tensors are read: save the state dict alone, best as .safetensors"
        ) from error
    except _DAMAGED as error:
        raise ValueError(
            f"{path.name} is damaged or cut off ({first_line(error)}): fetch or copy it again"
        ) from error
    state, size = as_state(content, path.name), path.stat().st_size
    for key, value in state.items():
        if value.numel() * value.element_size() > size:  # made by the pickle, without values in the file
            raise ValueError(f"{path.name}: {key} is larger than the file: save the state dict again")
    return state


def _check_stored(path: Path) -> None:
    """Refuses a ZIP archive, as torch saves, whose parts are compressed: it may fill the memory."""
    with path.open("rb") as file:
        if file.read(4) == b"PK\3\4":
            with zipfile.ZipFile(file) as archive:
                if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                    raise ValueError("its parts are compressed, which torch.save never does")


_DAMAGED = (
    *(SafetensorError, zipfile.BadZipFile, RuntimeError, EOFError, OSError),
    # torch's unpickler
    *(ValueError, TypeError, LookupError, AttributeError, AssertionError, OverflowError, struct.error),
)


def as_state(content: object, label: str) -> dict[str, Tensor]:
    """The tensors of a state dict, bare or under ``state_dict`` or ``model``, without any ``module.``."""
    inner = content
    while isinstance(inner, Mapping):
        wrapped = (inner[name] for name in _WRAPPERS if isinstance(inner.get(name), Mapping))
        if (deeper := next(wrapped, None)) is None:
            break
        inner = deeper
    items = inner.items() if isinstance(inner, Mapping) else ()
    state = {str(key).removeprefix("module."): value for key, value in items if isinstance(value, Tensor)}
    if not state:
        raise ValueError(
            f"{label} holds no state dict but a {type(inner).__name__} without tensors: "
            "give a mapping of parameter names to tensors, bare or under 'state_dict' or 'model'"
        )
    for key, value in state.items():
        special = value.layout is not torch.strided or value.is_nested or value.is_meta or value.is_quantized
        if special or value.numel() * value.element_size() > value.untyped_storage().nbytes():  # expanded
            raise ValueError(
                f"{label}: {key} must be a dense tensor: give a state dict of contiguous tensors"
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


def compare_weights(
    module: nn.Module, state: Mapping[str, Tensor], source: str, sha256: str
) -> WeightsReport:
    """What weights would give to a module, which may be on "meta".

    Raises:
        ValueError: values that the module needs are absent, of another shape, or no floats.
    """
    needed = module.state_dict()
    shared = [key for key in needed if key in state]
    shapes = [(key, tuple(state[key].shape), tuple(needed[key].shape)) for key in shared]
    mismatched = tuple(entry for entry in shapes if entry[1] != entry[2])
    absent = [key for key in needed if key not in state]
    extra = [key for key in state if key not in needed]
    report = WeightsReport(
        source=source,
        sha256=sha256,
        matched=tuple(key for key in shared if state[key].shape == needed[key].shape),
        missing=tuple(key for key in absent if not key.endswith("num_batches_tracked")),
        mismatched=mismatched,
        unexpected=tuple(key for key in extra if not key.startswith(CLASSIFIER_PREFIXES)),
        ignored=tuple(key for key in extra if key.startswith(CLASSIFIER_PREFIXES)),
    )
    if not report.complete:
        raise ValueError(_refusal(report, len(needed)))
    for key in report.matched:
        if needed[key].is_floating_point() and not state[key].is_floating_point():
            raise ValueError(f"{source}: {key} must be of floats, got {state[key].dtype}")
    return report


def _refusal(report: WeightsReport, needed: int) -> str:
    if len(report.matched) < needed // 2 or report.mismatched:
        advice = "the file is of another network: give the backbone name that it was made for"
    else:
        advice = (
            "give --backbone-weights a file that has them too, or leave it out for the published weights; "
            "`fewseg train` can do without: --method.backbone.levels"
        )
    return f"weights refused, {needed} tensors are needed. {report.summary()}. What to do: {advice}"


def _by_part(keys: tuple[str, ...]) -> str:
    counts = Counter(key.split(".")[0] for key in keys)
    return ", ".join(f"{part} ({count})" for part, count in sorted(counts.items()))


def published_name(name: str) -> str:
    """The tagged name of the weights that "imagenet" stands for.

    A name with a tag ("resnet50.a1_in1k") stands for itself. Otherwise torchvision's first weights are
    taken, which the few-shot papers use, and timm's default where torchvision has none (deep stems).
    """
    if name in RESNETS and not name.endswith("s"):
        return f"{name}.tv_in1k"
    import timm

    if timm.is_model_pretrained(f"{name}.tv_in1k"):
        return f"{name}.tv_in1k"
    if not timm.is_model_pretrained(name):
        raise ValueError(
            f"no weights are published for backbone {name!r}: choose a published one, "
            "give weights the path of a file, or None for random values"
        )
    return name


class WeightsUnavailableError(ValueError):
    """Published weights are neither on this machine nor can they be downloaded.

    Args:
        reason: which weights, and why not.
        advice: what to do.
    """

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason}: {advice}")
        self.reason, self.advice = reason, advice


def download(name: str) -> dict[str, Tensor]:
    """The published state dict, from a package or the cache without any network, or from the network.

    Raises:
        WeightsUnavailableError: there is no network.
    """
    if carried := packaged_file(name):
        return timm_names(read_state(carried))
    from huggingface_hub.constants import ENDPOINT

    plain = name.removesuffix(".tv_in1k") in RESNETS  # their files need no timm
    if plain:
        repository = f"timm/{name}"
    else:
        import timm

        repository = timm.get_pretrained_cfg(name).hf_hub_id
    cached = _cached(repository) if repository else None
    if plain and cached is not None and cached.endswith(".safetensors"):
        return read_state(cached)
    reason = unreachable(ENDPOINT) if repository and cached is None else ""
    try:
        if reason:
            raise ConnectionError(reason)
        import timm

        settings = {"pretrained_cfg_overlay": {"file": cached}} if cached else {}
        net = timm.create_model(name, pretrained=True, **settings)
    except (OSError, RuntimeError) as error:
        hub = f"{ENDPOINT}/{repository}/resolve/main/model.safetensors"
        where = hub if repository else timm.get_pretrained_cfg(name).url
        file = where.rpartition("/")[2]
        raise WeightsUnavailableError(
            f"the published weights {name!r} are not in the cache and could not be downloaded ({error})",
            f"run `curl -LO {where}` on a machine with a network, copy the file here and add "
            f"--backbone-weights {file} (`fewseg train`: --method.backbone.weights {file})",
        ) from error
    state: dict[str, Tensor] = net.state_dict()
    return state


def at_hand(name: str) -> bool:
    """Whether a network's published weights are on this machine, so that no connection is needed."""
    return bool(packaged_file(name) or _cached(f"timm/{name}"))


def _cached(repository: str) -> str | None:
    """The weight file that the Hugging Face cache has of a repository."""
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = repository.partition("@")
    for file in ("model.safetensors", "pytorch_model.bin"):
        path = try_to_load_from_cache(name, file, revision=revision or None)
        if isinstance(path, str):
            return path
    return None


def unreachable(url: str, seconds: float = 5) -> str:
    """Why a server gives no answer, or ""; one try, where huggingface_hub repeats for minutes."""
    answer = [f"no answer from {url} in {seconds:g} s"]

    def ask() -> None:
        try:
            urlopen(Request(url, method="HEAD"), timeout=seconds).close()
            answer[0] = ""
        except HTTPError:
            answer[0] = ""  # an answer
        except OSError as error:
            reason = getattr(error, "reason", error)  # huggingface_hub may know other certificates
            answer[0] = "" if isinstance(reason, SSLError) else f"no connection to {url}: {reason}"

    thread = Thread(target=ask, daemon=True)  # looking up a name has no time limit
    thread.start()
    thread.join(seconds)
    return answer[0]


def normalisation(name: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and std of RGB in [0, 1] of published weights; ImageNet's for None."""
    if name is None or name.removesuffix(".tv_in1k") in RESNETS:
        return IMAGENET_MEAN, _IMAGENET_STD
    import timm

    cfg = timm.get_pretrained_cfg(name)
    return tuple(cfg.mean), tuple(cfg.std)
