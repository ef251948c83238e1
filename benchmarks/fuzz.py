"""Broken and hostile inputs for every reader: each must end in success or in one clear line.

A seeded mutator makes them: truncations, bit flips, pieces moved, huge numbers, deep nesting, values of other
kinds, keys twice, NaN, odd unicode, paths that leave the folder, bombs. From number 100 on come fixed ones:
polygons of 10^7 points, and pictures and masks of up to 10^12 pixels, in each format that has such, all of
them once more as requests to the page. Each input is read in a child process with a limit of memory and of
time; an audit hook reports whatever is executed or connected, and whatever is written, made, moved or removed
outside the folder. Requests go to the page and to Label Studio's backend, whose Label Studio answers with
mutated exports and pictures. Wrong are: an error of other kinds than ValueError, OSError and RuntimeError; a
text that is empty, of several lines, or names no file; an HTTP status of 500 and above (but 502 of the
backend, whose Label Studio answers nonsense, and 503 where one more page is asked for); a crash; a hang; and
a reader that takes all or none of 500 inputs or more, which therefore do not test it.

uv run python benchmarks/fuzz.py [--count 1000] [--seed 0] [--only coco png ...] [--log fuzz.jsonl]

With ``--log`` a campaign is done in parts: the same command goes on, also with a larger count, and ends with
the sums. Several of these commands may share the file, each with other readers (``--only``): one for each
core.
"""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import tyro

from parts import in_memory, keep, lines_of, total

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Options:
    """How many inputs of what."""

    count: int = 1000  # of each reader
    seed: int = 0
    only: tuple[str, ...] = ()  # readers; all by default
    seconds: float = 20.0  # of the processor, for one input; a hang is ended after thirty times as long
    mib: int = 2048  # that reading one input may take
    keep: Path | None = None  # a folder for the inputs that fail
    log: Path | None = None  # a file of the parts that were done
    part: int = 500  # inputs of a reader, before the next one's turn


# ---------------------------------------------------------------- mutations

ODD = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 10**400, 1e308, 0.5),
    *(float("nan"), float("inf"), "", "a", "../../etc/passwd", "/etc/passwd", "C:\\x", "a\0b", "\ud800"),
    *("x" * 5000, "\u202e\u0000", "e\u0301", "%2e%2e/x", [], {}, [[]], [{}], {"a": []}, [1e999], [None] * 50),
    *("NaN", "1" * 5000, [[0, 0]] * 3, [0] * 4, list(range(300))),
)
"""Values for any place in JSON."""


def deep(rng: np.random.Generator) -> str:
    n = int(rng.choice([50, 300, 900, 1100, 100_000]))
    return "[" * n + "]" * n if rng.random() < 0.7 else '{"a":' * n + "1" + "}" * n


def mutate_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """A file with some of its bytes changed."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        if not data:
            break
        at, kind = int(rng.integers(len(data))), int(rng.integers(7))
        size = int(min(len(data) - at, 2 ** rng.integers(0, 8)))
        if kind == 0:
            del data[at:]
        elif kind == 1:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            data[at : at + size] = rng.integers(0, 256, size, dtype=np.uint8).tobytes()
        elif kind == 3:
            del data[at : at + size]
        elif kind == 4:
            data[at:at] = data[at : at + size] * int(rng.integers(1, 50))
        elif kind == 5:
            data[at : at + 4] = struct.pack(
                rng.choice([">I", "<I"]), int(rng.choice([0, 2**31 - 1, 2**32 - 1]))
            )
        else:
            other = int(rng.integers(len(data)))
            data[at : at + size] = data[other : other + size]
    return bytes(data)


def places_of(value: object, path: tuple = ()) -> Iterator[tuple]:
    """Every place in JSON, as the keys that lead there."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, own in items:
        yield (*path, key)
        yield from places_of(own, (*path, key))


def mutate_json(rng: np.random.Generator, value: object) -> str:
    """JSON with some values or keys changed."""
    value = json.loads(json.dumps(value))
    for _ in range(int(rng.integers(1, 4))):
        found = list(places_of(value))
        if not found:
            break
        *lead, last = found[int(rng.integers(len(found)))]
        inner = value
        for key in lead:
            inner = inner[key]
        kind = int(rng.integers(6))
        if kind <= 2:
            inner[last] = deepcopy(ODD[int(rng.integers(len(ODD)))])
        elif kind == 3:
            del inner[last]
        elif kind == 4 and isinstance(inner, dict):
            inner[str(ODD[int(rng.integers(len(ODD)))])] = inner.pop(last)
        else:
            source = found[int(rng.integers(len(found)))]
            other = value
            with suppress(KeyError, IndexError, TypeError):
                for key in source:
                    other = other[key]
                inner[last] = json.loads(json.dumps(other))
    text = json.dumps(value, ensure_ascii=bool(rng.random() < 0.5))
    chance = rng.random()
    if chance < 0.05 and (plain := list(re.finditer(r'(?<=: )(-?[\d.]+|"[^"\\]*")(?=[,}])', text))):
        start, end = plain[int(rng.integers(len(plain)))].span()
        return text[:start] + deep(rng) + text[end:]
    if chance < 0.1:  # a key twice
        text = re.sub(r'"(\w+)": ', lambda m: f'"{m[1]}": {{}}, {m[0]}', text, count=int(rng.integers(1, 4)))
    return text


def json_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """A JSON file, changed as JSON or as bytes; of JSON lines one line is changed."""
    if rng.random() < 0.25:
        return mutate_bytes(rng, content)
    lines = content.split(b"\n") if content.count(b"\n{") else [content]
    at = int(rng.integers(len(lines)))
    with suppress(ValueError, RecursionError):
        lines[at] = mutate_json(rng, json.loads(lines[at])).encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def text_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """XML, YAML or other text with words replaced."""
    if rng.random() < 0.3:
        return mutate_bytes(rng, content)
    words = list(re.finditer(rb"[\w.,;/-]+", content))
    for found in sorted(rng.choice(len(words), min(3, len(words)), replace=False), reverse=True):
        odd = str(ODD[int(rng.integers(len(ODD)))]).encode("utf-8", "surrogatepass")
        word = words[found]
        content = content[: word.start()] + odd + content[word.end() :]
    if rng.random() < 0.05:
        content = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>' + content
    return content


NUMBERS = (
    *(b"0", b"-0.0", b"1e-320", b"1e-5", b"256", b"65536", b"12345678", b"2147483648", b"1e18", b"-1e18"),
    *(b"1e308", b"1e400", b"-1e400", b"NaN", b"Infinity", b"-Infinity", b"9" * 400, b"1" * 5000),
)


def number_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """A text with some of its numbers changed, most into ones that may be meant: its form stays right."""
    found = list(re.finditer(rb"(?<![\w.+-])-?\d+(\.\d+)?(?![\w.])", content))
    count = min(len(found), int(rng.integers(1, 4)))
    for k in sorted(rng.choice(len(found), count, replace=False), reverse=True):
        if rng.random() < 0.2:
            new = NUMBERS[int(rng.integers(len(NUMBERS)))]
        elif found[k][0].startswith(b"0."):
            new = b"%.4f" % rng.choice([0, 1, rng.random(), rng.uniform(-0.01, 1.01)])
        else:
            new = b"%d" % rng.integers(-2, 60) if found[k][1] is None else b"%.2f" % rng.uniform(-9, 60)
        content = content[: found[k].start()] + new + content[found[k].end() :]
    return content


def via_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """VIA's JSON: a wrong region refuses its image, so that more often than not numbers alone are changed."""
    return number_bytes(rng, content) if rng.random() < 0.6 else json_bytes(rng, content)


def yolo_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """A label file or the YAML beside it with numbers changed, as YAML, or as text."""
    import yaml

    chance = rng.random()
    if chance < 0.2:
        return text_bytes(rng, content)
    if content.startswith(b"names:") and chance < 0.8:  # JSON is YAML
        return mutate_json(rng, yaml.safe_load(content)).encode("utf-8", "surrogatepass")
    return number_bytes(rng, content)


def xml_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """XML with elements or attributes changed, with numbers changed, or as text."""
    from xml.etree import ElementTree

    chance = rng.random()
    if chance < 0.2:
        return text_bytes(rng, content)
    if chance < 0.5:
        return number_bytes(rng, content)
    root = ElementTree.fromstring(content)
    for _ in range(int(rng.integers(1, 4))):
        every = list(root.iter())
        element, other = (every[int(rng.integers(len(every)))] for _ in range(2))
        kind = int(rng.integers(6))
        odd = re.sub("[^ -~\u00a1-\ud7ff]", "", str(ODD[int(rng.integers(len(ODD)))]))
        keys = list(element.attrib)
        if kind == 0:
            element.tag = str(rng.choice([*(e.tag for e in every), "x"]))
        elif kind == 1 and keys:
            element.set(keys[int(rng.integers(len(keys)))], odd)
        elif kind == 2 and keys:
            del element.attrib[keys[int(rng.integers(len(keys)))]]
        elif kind == 3 and len(element):
            element.remove(element[int(rng.integers(len(element)))])
        elif kind == 4:
            element.append(deepcopy(other))
        else:
            element.text = odd
    return ElementTree.tostring(root)


SIDES = {
    ".jpg": (rb"(?s)(\xff\xc0\x00\x11\x08)(..)()(..)", ">H"),
    ".tif": (rb"(?s)(\x00\x01\x04\x00\x01\x00\x00\x00)(....)(\x01\x01\x04\x00\x01\x00\x00\x00)(....)", "<I"),
    ".webp": (rb"(?s)(\x9d\x01\x2a)(..)()(..)", "<H"),
}
"""Where the sides of a picture are, and how they are written."""


def with_sides(suffix: str, content: bytes, sides: tuple[int, int]) -> bytes:
    """A picture whose head has other sides, modulo what fits there."""
    pattern, form = SIDES[suffix]
    first, second = (struct.pack(form, side % 256 ** struct.calcsize(form)) for side in sides)
    changed, count = re.subn(pattern, lambda m: m[1] + first + m[3] + second, content, count=1)
    if not count:
        raise ValueError(f"no sides in the {suffix} file")
    return changed


def picture_bytes(suffix: str) -> Callable[[np.random.Generator, bytes], bytes]:
    """A picture with bytes or with sides changed."""

    def mutate(rng: np.random.Generator, content: bytes) -> bytes:
        if rng.random() < 0.8:
            return mutate_bytes(rng, content)
        one, other = (int(rng.choice([0, 1, 7, 50, 6000, 16_383, 60_000, 2**31 - 1])) for _ in range(2))
        return with_sides(suffix, content, (one, other))

    return mutate


def result_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """A result; more often than not with the digest of what it has become."""
    from fewseg.engine.results import digest

    changed = json_bytes(rng, content)
    with suppress(ValueError, TypeError, RecursionError):
        value = json.loads(changed)
        if isinstance(value, dict) and rng.random() < 0.7:
            value["digest"] = digest({k: v for k, v in value.items() if k != "digest"})
            return json.dumps(value).encode()
    return changed


@cache
def deflated(size: int) -> bytes:
    return zlib.compress(bytes(size))


def png_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """A PNG with a chunk changed and its checksum right again, or with bytes changed."""
    if rng.random() < 0.5:
        return mutate_bytes(rng, content)
    chunks, at = [], 8
    while at < len(content):
        size = struct.unpack(">I", content[at : at + 4])[0]
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += size + 12
    k = int(rng.integers(len(chunks)))
    kind, body = chunks[k]
    choice = rng.random()
    if kind == b"IHDR" and choice < 0.7:
        sides = [int(rng.choice([0, 1, 7, 9000, 60_000, 2**31 - 1])) for _ in range(2)]
        body = struct.pack(">II", *sides) + body[8:] if choice < 0.4 else body[:8] + rng.bytes(5)
    elif choice < 0.3:
        chunks.insert(k, (b"zTXt", b"a\0\0" + deflated(int(rng.choice([10, 10**8])))))
        kind, body = chunks[k + 1] if k + 1 < len(chunks) else (kind, body)
        k += 1
    else:
        body = mutate_bytes(rng, body)
    chunks[k] = (kind, body)
    parts = [struct.pack(">I", len(b)) + t + b + struct.pack(">I", zlib.crc32(t + b)) for t, b in chunks]
    return content[:8] + b"".join(parts)


def safetensors_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """A safetensors file with its header or its metadata changed, or its bytes."""
    if rng.random() < 0.2:
        return mutate_bytes(rng, content)
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    if rng.random() < 0.7 and header.get("__metadata__"):
        key = list(header["__metadata__"])[int(rng.integers(len(header["__metadata__"])))]
        with suppress(ValueError):
            value = json.loads(header["__metadata__"][key])
            header["__metadata__"][key] = deep(rng) if rng.random() < 0.1 else mutate_json(rng, value)
        text = json.dumps(header)
    else:
        text = mutate_json(rng, header)
    stored = text.encode("utf-8", "surrogatepass")
    length = len(stored) if rng.random() < 0.9 else int(rng.choice([0, 2**31, 2**63, len(stored) - 1]))
    return struct.pack("<Q", length) + stored + content[8 + size :]


def npz_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """Counts with columns of odd shapes, types and headers."""
    import io
    import zipfile

    if rng.random() < 0.2:
        return mutate_bytes(rng, content)
    with np.load(io.BytesIO(content)) as stored:
        columns = {key: stored[key] for key in stored.files}
    key = list(columns)[int(rng.integers(len(columns)))]
    n = len(columns[key])
    odd = (
        np.array(3), np.zeros((n, 2), np.int64), np.zeros(0), np.full(n, np.nan), np.array(["x"] * n),
        np.zeros(n, "datetime64[s]"), np.zeros(n, bool), np.full(n, -5), np.full(n, 2**62), np.zeros(n, "V3"),
        np.zeros(n, [("a", int)]), np.zeros(n, np.complex128), columns[key][:-1],
        np.full(n, 2**64 - 1, np.uint64),
        np.array(["a"] * n, dtype=object).astype("S1"), np.zeros((n, 0)), np.zeros((1, n), np.float16),
    )  # fmt: skip
    kind = rng.random()
    if kind < 0.6:
        columns[key] = odd[int(rng.integers(len(odd)))]
    elif kind < 0.7:
        del columns[key]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for name, column in columns.items():
            own = io.BytesIO()
            np.save(own, column)
            data = own.getvalue()
            if name == key and kind >= 0.7:
                head = {
                    "descr": rng.choice(["<i8", "|O", "<M8[s]", "S9999999", "[('a', '<i8')]", "x"]),
                    "fortran_order": bool(rng.random() < 0.5),
                    "shape": [(2**40,), (10**9,), (-1,), (), (n, 10**8), (n,)][int(rng.integers(6))],
                }
                text = (repr(head) if rng.random() < 0.8 else "(" * 5000).encode() + b"\n"
                data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) & 0xFFFF) + text + data[128:]
            out.writestr(name + ".npy", data)
    return file.getvalue()


def pth_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """A file of torch.save with its pickle or another member changed, or one that would execute something."""
    import io
    import pickle
    import zipfile

    if rng.random() < 0.2:
        return mutate_bytes(rng, content)
    if rng.random() < 0.1:
        pickled = pickle.dumps({"a": Executes()}, protocol=int(rng.integers(5)))
        if rng.random() < 0.5:
            return pickled
    else:
        pickled = b""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as stored, zipfile.ZipFile(file, "w") as out:
        names = stored.namelist()
        chosen = names[int(rng.integers(len(names)))] if rng.random() < 0.5 else names[0]
        for name in names:
            data = stored.read(name)
            if pickled and name.endswith("data.pkl"):
                data = pickled
            elif name == chosen:
                data = mutate_bytes(rng, data)
            out.writestr(name, data)
    return file.getvalue()


class Executes:
    """Runs a command where its pickle is loaded without a check."""

    def __reduce__(self) -> tuple:
        return os.system, ("true",)


def zip_bytes(rng: np.random.Generator, files: dict[str, bytes]) -> bytes:  # noqa: C901
    """An archive of masks: paths that leave it, links, names twice, bombs, or bytes changed."""
    import io
    import warnings
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in files.items():
            out.writestr(name, data)
        kind = int(rng.integers(9))
        some = next(iter(files.values()))
        if kind == 0:
            for name in ("../out.png", "a/../../out.png", "/tmp/out.png", "..\\out.png", "masks/\udc80.png"):
                with suppress(ValueError):
                    out.writestr(name, some)
        elif kind == 1:
            link = zipfile.ZipInfo("masks/9.png")
            link.external_attr = 0o120777 << 16
            out.writestr(link, "/etc/passwd")
        elif kind == 2:
            out.writestr("masks/8.png", bytes(int(rng.choice([10**6, 10**7, 10**8], p=[0.5, 0.4, 0.1]))))
        elif kind == 3:
            for k in range(int(rng.choice([300, 21_000]))):
                out.writestr(f"masks/x{k}.png", b"")
        elif kind == 4:
            for _ in range(3):
                out.writestr(next(iter(files)), some)
        elif kind == 5:
            out.writestr("/".join(["d"] * int(rng.choice([50, 2000]))) + "/0.png", some)
        elif kind == 6:
            out.writestr("masks/classes.txt", text_bytes(rng, b"thing\nother\n"))
    return mutate_bytes(rng, file.getvalue()) if rng.random() < 0.3 else file.getvalue()


def parquet_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """A Parquet file with other values, columns or metadata, or with its bytes changed."""
    import io

    import pyarrow as pa
    from pyarrow import parquet

    chance = rng.random()
    if chance < 0.25:
        return mutate_bytes(rng, content)
    table = parquet.read_table(io.BytesIO(content))
    k = int(rng.integers(table.num_columns))
    if chance < 0.65:
        with suppress(Exception):  # rows that are none
            table = changed_rows(rng, table)
    elif chance < 0.8:
        n = table.num_rows
        odd = (
            pa.nulls(n), pa.array([k] * n), pa.array(["x"] * n), pa.array([b"\xff"] * n),
            pa.array([["a"]] * n), pa.array([{"a": 1}] * n), pa.array([float("nan")] * n),
            pa.array([True] * n), pa.array([0] * n, pa.timestamp("s")),
            pa.array(["a"] * n).dictionary_encode(), pa.array(["x" * 10**6] * n), pa.array(["\0"] * n),
            pa.array([""] * n), pa.array([2**63 - 1] * n),
        )  # fmt: skip
        table = table.set_column(k, table.column_names[k], odd[int(rng.integers(len(odd)))])
    elif chance < 0.9:
        names = list(table.column_names)
        names[k] = str(rng.choice([*names, "x", ""]))
        table = table.remove_column(k) if rng.random() < 0.5 else table.rename_columns(names)
    else:
        about = dict(table.schema.metadata or {b"fewseg": b"{}"})
        about[b"fewseg"] = json_bytes(rng, about[b"fewseg"])
        table = table.replace_schema_metadata(about)
    file = io.BytesIO()
    kind, rows = str(rng.choice(["none", "snappy", "gzip", "zstd"])), int(rng.choice([1, 100, 100, 100, 100]))
    parquet.write_table(table, file, compression=kind, row_group_size=rows)
    return file.getvalue()


def changed_rows(rng: np.random.Generator, table: object) -> object:
    """A table with values changed, of the same types where these can hold them."""
    import pyarrow as pa

    rows = table.to_pylist()
    if rng.random() < 0.5:
        text = mutate_json(rng, rows)
    else:
        text = number_bytes(rng, json.dumps(rows).encode()).decode()
    changed = json.loads(text)
    for row in changed:
        if isinstance(row.get("scores"), list):
            row["scores"] = [tuple(pair) for pair in row["scores"]]
    try:
        return pa.Table.from_pylist(changed, schema=table.schema)
    except pa.ArrowException:
        return pa.Table.from_pylist(changed)


# ---------------------------------------------------------------- readers


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A reader, good inputs of it, and how they are changed."""

    make: Callable[[Path], list[Path]]  # writes good files; which of them are changed
    mutate: Callable[[np.random.Generator, bytes], bytes]
    read: Callable[[Path], object]  # reads the folder with a changed file
    other: str = (
        r"(?!)"  # a pattern of texts that name a different file: one that is right without the change
    )


def picture(seed: int, mask: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 60, (40, 50, 3)).astype(np.uint8)
    pixels[8:25, 10:30] += 150
    labels = np.zeros((40, 50), np.uint8)
    labels[8:25, 10:30] = 1
    return labels if mask else pixels


def save_picture(path: Path, seed: int = 0, mask: bool = False, **keywords: object) -> Path:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, mask)).save(path, **keywords)
    return path


def image_reader(suffix: str, mutate: Callable, **keywords: object) -> Reader:
    from fewseg.inference.images import read_image

    def read(root: Path) -> None:
        read_image(root / f"a{suffix}")
        read_image((root / f"a{suffix}").read_bytes(), f"a{suffix}")

    return Reader(make=lambda root: [save_picture(root / f"a{suffix}", **keywords)], mutate=mutate, read=read)


def written(form: str) -> Callable[[Path], list[Path]]:
    """Writes annotations in a format of ``fewseg label``."""

    def make(root: Path) -> list[Path]:
        from fewseg.annotations.formats import FORMATS
        from fewseg.annotations.values import Prediction
        from fewseg.annotations.writer import WriteOptions

        for k in range(2):
            save_picture(root / f"images/{k}.png", k)
        out = root / "made"
        with FORMATS[form](out, ("thing", "other"), WriteOptions(images=root / "images")) as writer:
            for k in range(2):
                labels = picture(k, mask=True)
                labels[30:, 30:] = 2
                writer.write(
                    Prediction(name=f"{k}.png", labels=labels, classes=("thing", "other"), scores=(1, 1))
                )
        files = [f for f in out.rglob("*") if f.is_file() and not f.name.startswith(".")]
        return files if form == "png" else [f for f in files if f.suffix in (".json", ".yaml", ".txt")]

    return make


def annotations(make: Callable[[Path], list[Path]], mutate: Callable, place: str, **keywords: str) -> Reader:
    from fewseg.annotations.formats import read_supports
    from fewseg.annotations.options import ReadOptions

    def read(root: Path) -> None:
        path = root / place
        found = list(path.parent.glob(path.name))
        folder = root / "images"
        options = ReadOptions(images=folder if folder.is_dir() else None, predictions=True)
        read_supports(found[0] if found else path, options)

    return Reader(make=make, mutate=mutate, read=read, **keywords)


def in_text(name: str, text: str) -> Callable[[Path], list[Path]]:
    def make(root: Path) -> list[Path]:
        for k in range(2):
            save_picture(root / f"images/{k}.png", k)
        (root / name).write_text(text)
        return [root / name]

    return make


STUDIO = [
    {
        "id": k,
        "data": {"image": f"/data/upload/1/{k}.png"},
        "annotations": [
            {
                "id": 5,
                "updated_at": "2026-01-01T00:00:00Z",
                "was_cancelled": False,
                "ground_truth": False,
                "result": [
                    {
                        "id": f"r{n}", "type": kind, "from_name": "tag", "to_name": "image",
                        "original_width": 50, "original_height": 40, "image_rotation": 0,
                        "value": {**value, kind: ["thing"]},
                    }
                    for n, (kind, value) in enumerate((
                        ("polygonlabels", {"points": [[10, 10], [60, 10], [60, 60]], "closed": True}),
                        ("rectanglelabels", {"x": 10, "y": 10, "width": 30, "height": 30, "rotation": 5}),
                        ("ellipselabels", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 9, "rotation": 0}),
                        ("keypointlabels", {"x": 50, "y": 50, "width": 1}),
                    ))
                ],
            }
        ],
        "predictions": [{"result": [], "score": 0.5, "created_at": "2026-01-01T00:00:00Z"}],
    }
    for k in range(2)
]  # fmt: skip
"""An export of Label Studio with regions of several tools."""

VIEW = """<View><Image name="image" value="$image"/><PolygonLabels name="tag" toName="image">
<Label value="thing"/></PolygonLabels></View>"""

MINIMAL = [
    {"id": k, "annotation_id": k, "image": f"/data/upload/1/{k}.png", "updated_at": "2026-01-01T00:00:00Z"}
    | {"tag": [{"x": 10, "y": 10, "width": 30, "height": 30, "rectanglelabels": ["thing"],
                "original_width": 50, "original_height": 40}]}
    for k in range(2)
]  # fmt: skip

VIA = {
    f"{k}.png": {
        "filename": f"{k}.png",
        "size": -1,
        "regions": [
            {"shape_attributes": {"name": "polygon", "all_points_x": [5, 30, 30], "all_points_y": [5, 5, 30]},
             "region_attributes": {"class": "thing"}},
            {"shape_attributes": {"name": "circle", "cx": 20, "cy": 20, "r": 5},
             "region_attributes": {"class": "thing"}},
            {"shape_attributes": {"name": "rect", "x": 2, "y": 2, "width": 9, "height": 9},
             "region_attributes": {"class": "thing"}},
        ],
        "file_attributes": {},
    }
    for k in range(2)
}  # fmt: skip

CVAT = """<?xml version="1.0"?><annotations><version>1.1</version><meta><task><labels><label>
<name>thing</name></label></labels></task></meta><image id="0" name="0.png" width="50" height="40">
<polygon label="thing" points="5.0,5.0;30.0,5.0;30.0,30.0" z_order="0"/><box label="thing" xtl="1" ytl="1"
xbr="9" ybr="9" rotation="4"/><mask label="thing" rle="3, 2, 5" left="2" top="2" width="5" height="2"/>
<ellipse label="thing" cx="20" cy="20" rx="4" ry="3"/><points label="thing" points="3,3"/></image>
<image id="1" name="1.png" width="50" height="40"/></annotations>"""


@cache
def small_model():
    from fewseg.backbones import BackboneConfig, ResNetShape
    from fewseg.inference import Model
    from fewseg.methods.matcher import MatcherConfig

    shape = ResNetShape(layers=(1, 1, 1, 1), channels=(4, 8, 8, 8), stem_width=4)
    config = MatcherConfig(
        backbone=BackboneConfig(name="resnet18", weights=None, levels=("layer2", "layer3"), shape=shape)
    )
    return Model(config.build().eval(), config, 65)


def make_checkpoint(root: Path) -> list[Path]:
    from fewseg.engine.checkpoint import Checkpoint, save_checkpoint

    model = small_model()
    save_checkpoint(root / "a.safetensors", model.method, Checkpoint(config=model.config), whole=True)
    return [root / "a.safetensors"]


def make_trained(root: Path) -> list[Path]:
    from fewseg.data.folds import pascal_5i
    from fewseg.engine.checkpoint import Checkpoint, save_checkpoint, split_json
    from fewseg.methods.layers import PriorMap
    from fewseg.methods.pfenet import PFENetConfig

    prior = PriorMap(level="layer3", masked_input=None)
    backbone = small_model().config.backbone
    config = PFENetConfig(backbone=backbone, channels=8, scales=(1.0, 0.5), prior=prior)
    about = Checkpoint(
        config=config, recipe="voc5i_mini_pfenet", dataset="voc5i", class_split=split_json(pascal_5i(0)),
        training={"step": 3, "seed": 0, "config": None},
    )  # fmt: skip
    save_checkpoint(root / "a.safetensors", config.build().eval(), about, whole=True)
    return [root / "a.safetensors"]


def read_a_checkpoint(root: Path) -> None:
    from fewseg.engine.checkpoint import load_checkpoint

    load_checkpoint(root / "a.safetensors")


def make_weights(root: Path) -> list[Path]:
    from safetensors.torch import save_file

    trunk = small_model().method.backbone.trunk.named.state_dict()
    save_file({k: v.contiguous() for k, v in trunk.items()}, root / "a.safetensors")
    return [root / "a.safetensors"]


def make_pth(root: Path) -> list[Path]:
    import torch

    torch.save(small_model().method.backbone.trunk.named.state_dict(), root / "a.pth")
    return [root / "a.pth"]


def use_weights(root: Path) -> None:
    from dataclasses import replace

    (path,) = root.glob("a.*")
    config = small_model().config
    replace(config, backbone=replace(config.backbone, weights=str(path))).build()


def make_supports(root: Path) -> list[Path]:
    from fewseg.inference import Segmenter

    segmenter = Segmenter(small_model())
    for k in range(2):
        segmenter.add_class("thing", picture(k), picture(k, mask=True))
    segmenter.save_supports(root / "a.safetensors")
    return [root / "a.safetensors"]


def use_supports(root: Path) -> None:
    from fewseg.inference import Segmenter

    segmenter = Segmenter(small_model())
    segmenter.load_supports(root / "a.safetensors")
    segmenter.segment(picture(5))


def make_result(root: Path) -> list[Path]:
    """A result with its counts, made by an evaluation of a moment."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import kills

    (root / "inputs").mkdir()
    kills.recipes(root / "inputs")
    words = ("--fold", "0", "--episodes", "40", "--seeds", "0", "1", "--out", str(root / "made"), "--quiet")
    kills.command("evaluate", "kills_matcher", *words)
    return sorted((root / "made").glob("*1shot*.json"))


def make_counts(root: Path) -> list[Path]:
    return [make_result(root)[0].with_suffix(".counts.npz")]


def read_result(root: Path) -> None:
    from fewseg.engine.results import load_with_counts

    (path,) = (root / "made").glob("*1shot*.json")
    load_with_counts(path)


def read_counts(root: Path) -> None:
    """Counts with a result that has their digest, as otherwise all that are changed are refused by it."""
    from fewseg.engine.results import sealed

    (path,) = (root / "made").glob("*1shot*.json")
    stored = {key: value for key, value in json.loads(path.read_bytes()).items() if key != "digest"}
    path.write_text(json.dumps(sealed(stored, path)))
    read_result(root)


def read_table(root: Path) -> None:
    """A result that cannot be read is left out of the table, with a reason; the others are in it."""
    from fewseg.reports.frame import load_results

    good = {path.stem for path in (root / "made").glob("*.json") if "1shot" not in path.name}
    try:
        found = load_results(root / "made")
    except FINE as error:
        raise AssertionError(f"one broken result, and no table of the others: {error}") from error
    if missing := good - set(found.frame.index):
        raise AssertionError(f"the table lacks {sorted(missing)}")
    if found.left_out:
        raise ValueError("\n".join(found.left_out))


def make_manifest(root: Path) -> list[Path]:
    from fewseg.data.episodes import EpisodeSpec, Way, write_manifest

    specs = [EpisodeSpec(k, 1, f"q{k}", (f"s{k}",), (Way(2, ("t",)),)) for k in range(3)]
    write_manifest(root / "a.jsonl", specs, {"dataset": "x"})
    return [root / "a.jsonl"]


def use_manifest(root: Path) -> None:
    from fewseg.data.episodes import read_manifest

    read_manifest(root / "a.jsonl")


def make_predictions(root: Path) -> list[Path]:
    made = [f for f in written("jsonl")(root) + list((root / "made").glob("*.jsonl")) if f.suffix == ".jsonl"]
    return [made[0]]


def read_predictions(root: Path) -> None:
    from fewseg.annotations.jsonl import read_jsonl

    list(read_jsonl(root / "made/predictions.jsonl"))


def make_list(root: Path) -> list[Path]:
    import pyarrow as pa
    from pyarrow import parquet

    paths = [str(save_picture(root / f"images/{k}.png", k).relative_to(root)) for k in range(2)]
    columns = {"path": [*paths, "memory://a/2.png"], "name": ["a.png", "b/a.png", "c.png"]}
    parquet.write_table(pa.table(columns), root / "a.parquet")
    return [root / "a.parquet"]


def read_list(root: Path) -> None:
    from fewseg.inference.find import find_everywhere

    find_everywhere([str(root / "a.parquet")])


def make_parquet(root: Path) -> list[Path]:
    from fewseg.annotations import parquet
    from fewseg.annotations.values import Instance, Prediction
    from fewseg.annotations.writer import line_of

    lines = [{"name": "bad.png", "problem": "it is no image"}]
    for k in range(3):
        labels = picture(k, mask=True)
        labels[30:, 30:] = 255
        thing = Instance(class_name="thing", box=(10, 8, 20, 17), piece=labels[8:25, 10:30], score=0.5)
        found = Prediction(
            name=f"{k}.png", labels=labels, classes=("thing", "other"), scores=(1, 0.25),
            facts={"quality": 0.5}, instances=(thing,),
        )  # fmt: skip
        lines.append({"name": found.name, **line_of(found)})
    (root / "made").mkdir()
    path = root / "made" / parquet.part_name([line["name"] for line in lines])
    path.write_bytes(parquet.parquet_bytes(lines, ("thing", "other")))
    return [path]


def read_results(root: Path) -> None:
    from fewseg.annotations.parquet import read_columns, read_parquet

    read_columns(str(root / "made"), ["name", "problem"])
    list(read_parquet(str(root / "made")))


def long_list(count: int) -> bytes:
    """A Parquet file of a few KiB that lists so many names of 1000 characters, all the same."""
    import io

    import pyarrow as pa
    from pyarrow import parquet

    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array(["x" * 1000]))
    file = io.BytesIO()
    parquet.write_table(pa.table({"path": names, "name": names}), file)
    return file.getvalue()


def huge_masks(found: re.Match[bytes]) -> bytes:
    """Parquet results whose masks have 10^12 pixels."""
    import io

    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(found[0]))
    rows = table.to_pylist()
    for row in rows[1:]:
        row |= {"height": 10**6, "width": 10**6}
        for thing in (*row["regions"], *row["instances"]):
            thing["segmentation"] = {"size": [10**6, 10**6], "counts": "0PPTZZZSm0"}
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)
    return file.getvalue()


POINTS = 10**7
FIRST_BOMB = 100
HUGE = rb'"segmentation":{"size":[1000000,1000000],"counts":[0,1000000000000]}'
COCO_MASK = rb'"segmentation":\{"size":\[40,50\],"counts":"[^"]*"\}'
HUGE_SIZE = (rb'"height":40,"width":50', b'"height":1000000,"width":1000000')


WHOLE, PNG = rb"(?s)\A.+\Z", rb"(?s)\A\x89PNG.*\Z"


def huge_png() -> bytes:
    """The start of a PNG of 10^12 pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", 10**6, 10**6, 8, 0, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return head + struct.pack(">I", 9) + b"IDAT" + deflated(10)[:9]


def huge_picture(suffix: str) -> tuple[tuple[bytes, Callable[[re.Match[bytes]], bytes]], ...]:
    """All of a picture becomes one with the largest sides that its head may have."""
    side = 16_383 if suffix == ".webp" else 2**16 - 1 if suffix == ".jpg" else 10**6
    return ((WHOLE, lambda m: with_sides(suffix, m[0], (side, side))),)


BOMBS: dict[str, tuple[tuple[tuple[bytes, bytes | Callable[[re.Match[bytes]], bytes]], ...], ...]] = {
    "png": (((PNG, huge_png()),),),
    "jpeg": (huge_picture(".jpg"),),
    "tiff": (huge_picture(".tif"),),
    "webp": (huge_picture(".webp"),),
    "masks": (((PNG, huge_png()),),),
    "coco": (
        ((COCO_MASK, lambda _: b'"segmentation":[[' + b"5,5," * POINTS + b"9,9]]"),),
        ((COCO_MASK, HUGE),),
        ((COCO_MASK, HUGE), HUGE_SIZE),
    ),
    "labelme": (((rb'"points":\[', lambda _: b'"points":[' + b"[5,5]," * POINTS),),),
    "labelme-masks": (((rb'"mask":"[^"]*"', lambda _: b'"mask":"' + base64.b64encode(huge_png()) + b'"'),),),
    "label-studio": (
        ((rb'"rle":\[0,0,31,64,', b'"rle":[255,255,255,255,'),),
        (
            (
                rb'"original_width":50,"original_height":40',
                b'"original_width":1000000,"original_height":1000000',
            ),
        ),
    ),
    "label-studio-tools": (((rb'"points": \[', lambda _: b'"points": [' + b"[5,5]," * POINTS),),),
    "label-studio-min": (
        (
            (
                rb'"width": 30, "height": 30, "rectanglelabels"',
                lambda _: b'"points": [' + b"[5,5]," * POINTS + b'[9,5]], "polygonlabels"',
            ),
        ),
    ),
    "yolo": (((rb"^0 0\.2", lambda _: b"0 " + b"0.5 0.5 " * POINTS + b"0.2"),),),
    "cvat-xml": (
        ((rb'points="', lambda _: b'points="' + b"5.0,5.0;" * POINTS),),
        (
            (
                rb'rle="3, 2, 5" left="2" top="2" width="5" height="2"',
                b'rle="0, 1000000000000" left="0" top="0" width="1000000" height="1000000"',
            ),
            (rb'width="50" height="40"', b'width="1000000" height="1000000"'),
        ),
    ),
    "via": (
        (
            (rb'"all_points_x": \[', lambda _: b'"all_points_x": [' + b"5, " * POINTS),
            (rb'"all_points_y": \[', lambda _: b'"all_points_y": [' + b"5, " * POINTS),
        ),
    ),
    "image-list": (((WHOLE, lambda _: long_list(10**5)),),),
    "parquet": (((WHOLE, lambda _: long_list(10**6)),), ((WHOLE, huge_masks),)),
    "predictions": (((COCO_MASK, HUGE),), ((COCO_MASK, HUGE), HUGE_SIZE)),
}
"""Fixed inputs of a reader: in the first good file that has all of it, what is replaced and by what."""


def bombed(changes: tuple, contents: dict[Path, bytes]) -> tuple[Path, bytes]:
    for file, content in contents.items():
        if all(re.search(pattern, content) for pattern, _ in changes):
            for pattern, new in changes:
                content = re.sub(pattern, new if callable(new) else lambda _: new, content, count=1)  # noqa: B023
            return file, content
    raise ValueError(f"no good file has {[pattern for pattern, _ in changes]}")


@cache
def readers() -> dict[str, Reader]:
    checkpoint = {"mutate": safetensors_bytes, "read": read_a_checkpoint}
    return {
        "png": image_reader(".png", png_bytes),
        "jpeg": image_reader(".jpg", picture_bytes(".jpg"), quality=80),
        "tiff": image_reader(".tif", picture_bytes(".tif")),
        "webp": image_reader(".webp", picture_bytes(".webp")),
        "masks": annotations(written("png"), png_bytes, "made"),
        "coco": annotations(written("coco"), json_bytes, "made/coco.json"),
        "labelme": annotations(written("labelme-polygons"), json_bytes, "made/labelme"),
        "labelme-masks": annotations(written("labelme"), json_bytes, "made/labelme"),
        "label-studio": annotations(written("label-studio"), json_bytes, "made/*.json"),
        "label-studio-tools": annotations(in_text("a.json", json.dumps(STUDIO)), json_bytes, "a.json"),
        "label-studio-min": annotations(in_text("a.json", json.dumps(MINIMAL)), json_bytes, "a.json"),
        "yolo": annotations(
            written("yolo"),
            yolo_bytes,
            "made/yolo",
            other=r"labels/\d\.txt, line \d+: the class must be one of",
        ),
        "cvat-masks": annotations(written("cvat"), text_bytes, "made/cvat"),
        "cvat-xml": annotations(in_text("a.xml", CVAT), xml_bytes, "a.xml"),
        "via": annotations(in_text("a.json", json.dumps(VIA)), via_bytes, "a.json"),
        "predictions": Reader(make=make_predictions, mutate=json_bytes, read=read_predictions),
        "image-list": Reader(make=make_list, mutate=parquet_bytes, read=read_list),
        "parquet": Reader(make=make_parquet, mutate=parquet_bytes, read=read_results),
        "supports": Reader(make=make_supports, mutate=safetensors_bytes, read=use_supports),
        "checkpoint": Reader(make=make_checkpoint, **checkpoint),
        "trained-checkpoint": Reader(make=make_trained, **checkpoint),
        "weights": Reader(make=make_weights, mutate=safetensors_bytes, read=use_weights),
        "weights-pth": Reader(make=make_pth, mutate=pth_bytes, read=use_weights),
        "result": Reader(make=make_result, mutate=result_bytes, read=read_table),
        "counts": Reader(make=make_counts, mutate=npz_bytes, read=read_counts),
        "manifest": Reader(make=make_manifest, mutate=json_bytes, read=use_manifest),
    }


# ---------------------------------------------------------------- requests


def png(rng: np.random.Generator, mask: bool = False, changed: float = 0.5) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture(int(rng.integers(9)), mask=mask)).save(file, format="PNG")
    return png_bytes(rng, file.getvalue()) if rng.random() < changed else file.getvalue()


def hints(rng: np.random.Generator) -> bytes:
    """What a person painted, below each other: classes and kinds."""
    import io

    from PIL import Image

    planes = np.concatenate([picture(0, mask=True), picture(0, mask=True)])
    if rng.random() < 0.3:
        planes[40:] = rng.integers(0, int(rng.choice([2, 3, 9])), planes[40:].shape)
    file = io.BytesIO()
    Image.fromarray(planes).save(file, format="PNG")
    return png_bytes(rng, file.getvalue()) if rng.random() < 0.4 else file.getvalue()


def uploaded_masks(rng: np.random.Generator) -> bytes:
    """An archive of masks or of annotations, or annotations alone."""
    kind = int(rng.integers(4))
    if kind == 0:
        return json_bytes(rng, json.dumps(VIA).encode())
    if kind == 1:
        return zip_bytes(rng, {"annotations.xml": text_bytes(rng, CVAT.encode())})
    if kind == 2:
        return zip_bytes(
            rng, {"a.json": json_bytes(rng, json.dumps(STUDIO).encode()), "images/0.png": png(rng)}
        )
    return zip_bytes(rng, {f"masks/{k}.png": png(rng, mask=True, changed=0.2) for k in range(2)})


STUDIO_ROUTES = ("/setup", "/predict", "/webhook")


def studio_body(rng: np.random.Generator, path: str) -> bytes:
    """What Label Studio sends, more often than not without a change: an odd one ends at the first check."""
    project = f"{int(rng.integers(1, 20))}.1"
    view = VIEW if rng.random() < 0.7 else text_bytes(rng, VIEW.encode()).decode("utf-8", "replace")
    value = {
        "/setup": {"project": project, "schema": view, "hostname": "http://x", "access_token": "x"},
        "/predict": {
            "tasks": STUDIO, "label_config": view, "project": project, "params": {"context": {}},
        },
        "/webhook": {
            "action": "ANNOTATION_CREATED", "project": {"id": int(rng.integers(1, 20))}, "task": STUDIO[0],
        },
    }[path]  # fmt: skip
    text = json.dumps(value) if rng.random() < 0.6 else mutate_json(rng, value)
    return text.encode("utf-8", "surrogatepass")


def body_of(rng: np.random.Generator, method: str, path: str) -> bytes:
    if method not in ("PUT", "POST"):
        return b""
    if path in STUDIO_ROUTES:
        return studio_body(rng, path)
    if path == "/api/masks":
        return uploaded_masks(rng)
    return hints(rng) if path.endswith("complete") else png(rng, mask=path.endswith("labels"))


def odd_request(rng: np.random.Generator, client: object, token: str) -> str:
    """Sends one odd request to the page or to the backend; how it ended."""
    from urllib.parse import quote, urlencode

    images = client.get("/api/session", headers={"X-Fewseg-Session": token}).json().get("images", [])
    known = images[int(rng.integers(len(images)))]["id"] if images else "x"
    odd = lambda: str(ODD[int(rng.integers(len(ODD)))])  # noqa: E731
    id = known if rng.random() < 0.8 else odd()
    routes = (
        ("POST", "/api/sessions"), ("GET", "/api/session"), ("POST", "/api/images"), ("POST", "/api/images"),
        ("GET", f"/api/images/{id}/picture"), ("GET", f"/api/images/{id}/labels"),
        ("GET", f"/api/images/{id}/file"), ("DELETE", f"/api/images/{id}"),
        ("PUT", f"/api/images/{id}/labels"), ("PUT", f"/api/images/{id}/labels"),
        ("DELETE", f"/api/images/{id}/labels"), ("POST", f"/api/images/{id}/complete"),
        ("GET", f"/api/images/{id}/quality"), ("POST", "/api/classes"), ("PUT", "/api/classes/1"),
        ("DELETE", f"/api/classes/{rng.choice(['1', '2', odd()[:9]])}"),
        ("POST", "/api/masks"), ("POST", "/api/masks"), ("POST", "/api/masks"),
        ("POST", "/api/undo"), ("POST", "/api/redo"), ("GET", "/api/advice"), ("GET", "/api/examples"),
        ("GET", f"/api/download/{rng.choice(['png', 'coco', 'label-studio', 'yolo', 'cvat', 'labelme'])}"),
        ("GET", f"/api/download/{odd()[:9]}"), ("DELETE", "/api/session"),
        ("GET", "/../../etc/passwd"), ("GET", "/%2e%2e/%2e%2e/etc/passwd"), ("GET", f"/{odd()[:99]}"),
        *(("POST", path) for path in STUDIO_ROUTES * 2), ("GET", "/versions"), ("GET", "/health"),
    )  # fmt: skip
    method, path = routes[int(rng.integers(len(routes)))]
    names = ("0.png", "1.png", "a.zip", "a.json", odd())
    words = {"name": names[int(rng.integers(5))], "threshold": odd(), "edit": odd(), "instances": odd()}
    query = {key: value for key, value in words.items() if rng.random() < (0.8 if key == "name" else 0.15)}
    if rng.random() < 0.5:
        query["role"] = str(rng.choice(["support", "support", "accepted", odd()]))
    headers = {"X-Fewseg-Session": token if rng.random() < 0.95 else odd()[:99]}
    clean = {k: v.encode("ascii", "replace").decode().replace("\0", "0") for k, v in headers.items()}
    address = (
        quote(path.encode("utf-8", "surrogatepass"), safe="/%.")
        + "?"
        + urlencode({k: v.encode("utf-8", "surrogatepass") for k, v in query.items()})
    )
    body = body_of(rng, method, path)
    return judged(client.request(method, address[:60_000], content=body, headers=clean), path)


def judged(answer: object, path: str) -> str:
    """How a request ended."""
    status, method = answer.status_code, answer.request.method
    if status >= 400:
        with suppress(ValueError):
            detail = answer.json()["detail"]
            lines = str(detail).strip().split("\n")
            if not lines[0] or any(not line.startswith("  ") for line in lines[1:]):  # but a list
                return f"wrong {method} {path}: detail {detail!r}"
    if status >= 500 and (status, path) not in ((503, "/api/sessions"), *((502, p) for p in STUDIO_ROUTES)):
        return f"wrong {method} {path}: {status} {answer.text[:200]}"
    kind = "backend " if path in STUDIO_ROUTES else ""
    return f"done {kind}{'success' if status < 400 else status}"


def bomb_request(name: str, number: int, folder: Path) -> tuple[str, str, bytes]:
    """A fixed input of a reader as a request: its path, the name of the upload, and the upload."""
    import io
    import zipfile

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    files = readers()[name].make(folder)
    source, content = bombed(BOMBS[name][number], {file: file.read_bytes() for file in files})
    if source.parent == folder and source.suffix in (".png", *SIDES):
        return "/api/images", source.name, content
    upload = io.BytesIO()
    with zipfile.ZipFile(upload, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                place = file.relative_to(folder).as_posix().removeprefix("made/")
                archive.writestr(place, content if file == source else file.read_bytes())
    return "/api/masks", "a.zip", upload.getvalue()


class Studio:
    """A Label Studio whose exports and pictures are mutated, by the number of the request."""

    def __init__(self, seed: int) -> None:
        self.seed, self.number = seed, 0

    def __call__(self, request: object) -> object:
        import httpx

        path = request.url.path
        rng = np.random.default_rng([self.seed, self.number, *path.encode()])
        if rng.random() < 0.03:
            return httpx.Response(int(rng.choice([302, 401, 404, 500])), headers={"Location": "http://x/"})
        if path.endswith("/export"):
            text = json.dumps(STUDIO) if rng.random() < 0.4 else mutate_json(rng, STUDIO)
            content = text.encode("utf-8", "surrogatepass")
            content = content if rng.random() < 0.9 else mutate_bytes(rng, content)
        else:
            content = png(rng, changed=0.3)
        return httpx.Response(200, stream=httpx.ByteStream(content))


def server_client(studio: Studio):
    """The page and the Label Studio backend, without a socket."""
    import httpx
    from fastapi.testclient import TestClient

    from fewseg.serve.app import create_app
    from fewseg.serve.label_studio_client import StudioSettings
    from fewseg.serve.limits import Limits

    settings = StudioSettings(
        url="http://studio:8080", key="x", shots=5, transport=httpx.MockTransport(studio)
    )
    limits = Limits(sessions=3, pixels=10**6, upload_bytes=16 * MIB, session_bytes=256 * MIB)
    app = create_app(small_model(), limits, label_studio=settings)
    client = TestClient(app, base_url="http://127.0.0.1:8017", raise_server_exceptions=False)
    return client, client.post("/api/sessions").json()["token"]


def many_requests(tell: Callable[[str], None], first: int, last: int, options: Options, folder: Path) -> None:
    """A page that lives on from request to request, so that some meet images, masks and predictions."""
    studio = Studio(options.seed)
    bombs = [(name, k) for name, own in BOMBS.items() for k in range(len(own))]
    client, token = server_client(studio)
    with client:  # one event loop for all
        for k in range(first, last):
            studio.number = k
            rng = np.random.default_rng([options.seed, k])
            if client.get("/api/session", headers={"X-Fewseg-Session": token}).status_code != 200:
                token = client.post("/api/sessions").json()["token"]
                for n in range(2):
                    headers = {"X-Fewseg-Session": token}
                    content = png(np.random.default_rng(n), changed=0)
                    client.post("/api/images", params={"name": f"{n}.png"}, content=content, headers=headers)
            if 0 <= k - FIRST_BOMB < len(bombs):
                path, name, content = bomb_request(*bombs[k - FIRST_BOMB], folder)
                words = {"params": {"name": name}, "content": content}
                headers = {"X-Fewseg-Session": token}
                act = lambda: judged(client.post(path, headers=headers, **words), path)  # noqa: B023, E731
            else:
                act = lambda: odd_request(rng, client, token)  # noqa: B023, E731
            limited(tell, k, options, lambda: ended(act))  # noqa: B023


def ended(act: Callable[[], str]) -> str:
    """How a request ended; an error that the server does not answer is wrong."""
    try:
        return act()
    except Exception as error:  # what the campaign looks for
        return f"wrong {type(error).__name__}: {' '.join(str(error).split())[:300]}"


# ---------------------------------------------------------------- the campaign

FINE = (ValueError, OSError, RuntimeError)
"""What the command line prints as one line; a MemoryError is none."""


EXECUTED = (
    "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.spawn",
    "pickle.find_class", "socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo",
)  # fmt: skip
"""Audit events of which none may come."""

WRITTEN = {
    "os.mkdir": ((0, 2),), "os.rmdir": ((0, 1),), "os.remove": ((0, 1),), "os.rename": ((0, 2), (1, 3)),
    "os.link": ((0, 2), (1, 3)), "os.symlink": ((1, 2),), "os.truncate": ((0, None),), "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),), "os.utime": ((0, 3),), "os.setxattr": ((0, None),), "os.mkfifo": ((0, 2),),
    "shutil.rmtree": ((0, 1),), "shutil.move": ((0, None), (1, None)), "shutil.copyfile": ((1, None),),
    "shutil.copytree": ((1, None),), "shutil.unpack_archive": ((1, None),),
}  # fmt: skip
"""Audit events that change files: the places of the paths among the arguments, and of the folder's handle."""

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def watch(folders: list[Path], tell: Callable[[str], None]) -> None:  # noqa: C901
    """Reports what is executed or connected, and what is changed outside the folders."""
    homes, peak = tuple(f"{folder.resolve()}/" for folder in folders), f"/proc/{os.getpid()}/clear_refs/"

    def outside(path: object, folder: object) -> str:
        if not isinstance(path, str | bytes):  # a handle, which was opened before
            return ""
        place = os.fsdecode(path)
        if isinstance(folder, int) and folder >= 0:
            place = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), place)
        parent, name = os.path.split(os.path.abspath(place))
        real = os.path.join(os.path.realpath(parent), name) + "/"
        return "" if real.startswith((*homes, "/dev/null/", peak)) else real

    def hook(event: str, arguments: tuple) -> None:
        if event in EXECUTED:
            tell(f"wrong executed {event} {arguments!r:.200}")
        elif event == "open":
            mode, flags = arguments[1], arguments[2]
            writes = set(mode) & set("wax+") if isinstance(mode, str) else (flags or 0) & WRITES
            if writes and (found := outside(arguments[0], None)):
                tell(f"wrong opened for writing {found}")
        elif event in WRITTEN:
            for path, folder in WRITTEN[event]:
                handle = arguments[folder] if folder is not None and folder < len(arguments) else None
                if found := outside(arguments[path], handle):
                    tell(f"wrong {event} {found}")

    sys.addaudithook(hook)


TIMES = (signal.SIGPROF, signal.SIGALRM)


def check(reader: Reader, root: Path, name: str) -> str:
    """Reads a folder; how it ended."""
    try:
        reader.read(root)
    except FINE as error:
        text = error.strerror or "" if isinstance(error, OSError) and error.errno else str(error)
        if isinstance(error, UnicodeError | json.JSONDecodeError | RecursionError) or not text.strip():
            return f"wrong {type(error).__name__}: {text[:200]}"
        if any(not line.startswith("  ") for line in text.strip().split("\n")[1:]):  # but a list
            return f"wrong several lines: {text[:300]!r}"
        if name not in text and not re.search(reader.other, text):
            return f"wrong names no file: {type(error).__name__}: {text[:200]!r}"
        return "done refused"
    except Exception as error:  # what the campaign looks for
        last = traceback.extract_tb(error.__traceback__)[-1]
        return (
            f"wrong {type(error).__name__}: {' '.join(str(error).split())[:160]} at "
            f"{last.filename.split('site-packages/')[-1].split('src/')[-1]}:{last.lineno}"
        )
    return "done success"


def child(
    name: str, options: Options, good: Path, files: list[Path], first: int, last: int, pipe: int
) -> None:
    """Reads inputs from a number on, in a process of its own."""

    def tell(text: str) -> None:
        os.write(pipe, text.encode("utf-8", "replace").replace(b"\n", b" ")[:3000] + b"\n")

    import logging

    logging.disable(logging.CRITICAL)
    work = good.with_name(f"{name}-work")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + options.mib * MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(good, work)
    tempfile.tempdir, sys.dont_write_bytecode = str(work), True
    watch([work, *([] if options.keep is None else [options.keep])], tell)
    if name == "requests":
        many_requests(tell, first, last, options, work / "bomb")
        return
    reader, contents = readers()[name], {file: file.read_bytes() for file in files}
    for k in range(first, last):
        rng = np.random.default_rng([options.seed, k])
        bombs = BOMBS.get(name, ())
        if 0 <= k - FIRST_BOMB < len(bombs):
            source, changed = bombed(bombs[k - FIRST_BOMB], contents)
        else:
            source = files[int(rng.integers(len(files)))]
            changed = reader.mutate(rng, contents[source])
        target = work / source.relative_to(good)
        target.write_bytes(changed)
        del changed
        found = limited(tell, k, options, lambda: check(reader, work, target.name))  # noqa: B023
        if found.startswith("wrong") and options.keep is not None:
            options.keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(target, options.keep / f"{name}-{k}-{target.name}")
        target.write_bytes(contents[source])


def resident(kind: str) -> int:
    """KiB that the process has now (VmRSS), or had at most (VmHWM)."""
    (line,) = re.findall(rf"{kind}:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(line)


def limited(tell: Callable[[str], None], k: int, options: Options, act: Callable[[], str]) -> str:
    """Does something with an input within the limit of time; reports how it ended, and its cost."""
    tell(f"at {k}")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    before, start = resident("VmRSS"), time.process_time()
    signal.setitimer(signal.ITIMER_PROF, options.seconds)
    signal.setitimer(signal.ITIMER_REAL, 30 * options.seconds)
    found = act()
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    spent = time.process_time() - start
    grown = (resident("VmHWM") - before) // 1024
    tell(f"wrong {k} {found.removeprefix('wrong ')}" if found.startswith("wrong") else found)
    tell(f"cost {spent:.3f} {grown}")
    return found


@cache
def good_files(name: str, good: Path) -> list[Path]:
    """Writes good files of a reader once; those that are changed."""
    shutil.rmtree(good, ignore_errors=True)
    good.mkdir()
    if name == "requests":
        return []
    with redirect_stdout(sys.stderr):
        files = sorted(readers()[name].make(good))
    readers()[name].read(good)  # without an error: what is changed is right
    return files


def campaign(name: str, options: Options, folder: Path, start: int, end: int) -> dict[str, object]:
    """Some of the inputs of one reader; what was found."""
    good = folder / name
    files, begun = good_files(name, good), time.monotonic()
    first, wrong, kinds = start, [], Counter()
    slowest = most = 0.0
    while first < end:
        receiving, sending = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(receiving)
            try:
                child(name, options, good, files, first, end, sending)
            except BaseException:  # of the campaign itself
                os.write(sending, f"wrong campaign {traceback.format_exc()[-800:]!r}\n".encode())
                os._exit(3)
            os._exit(0)
        os.close(sending)
        at = first
        with os.fdopen(receiving, errors="replace") as lines:
            for line in lines:
                kind, _, rest = line.strip().partition(" ")
                if kind == "at":
                    at = int(rest)
                elif kind == "done":
                    kinds[rest] += 1
                elif kind == "cost":
                    seconds, grown = map(float, rest.split())
                    slowest, most = max(slowest, seconds), max(most, grown)
                else:
                    wrong.append(rest)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status == 0:
            break
        wrong.append(f"{at} process ended with {status}" + (" (time)" if -status in TIMES else ""))
        first = at + 1
        if status == 3:
            break
    return {
        "reader": name, "inputs": end - start, **kinds, "wrong": len(wrong), "slowest s": round(slowest, 2),
        "most MiB": most,
        "seconds": round(time.monotonic() - begun, 1),
        "kinds of wrong": dict(Counter(re.sub(r"^\d+ ", "", w)[:150] for w in wrong).most_common(15)),
        "first": wrong[:5],
    }  # fmt: skip


ENOUGH = 500
"""Inputs from which on a reader must have taken some of them and refused others."""


def judge(found: dict[str, object]) -> None:
    """Prints the successes and the refusals of a reader; all or none of them is wrong."""
    success = sum(count for kind, count in found.items() if kind.endswith("success"))
    refused = sum(count for kind, count in found.items() if kind == "refused" or kind[-3:].isdigit())
    text = f"{found['reader']}: {success} successes, {refused} refused of {found['inputs']} inputs"
    print(text, file=sys.stderr)
    if found["inputs"] >= ENOUGH and not (success and refused):
        found["wrong"] += 1
        found["first"] = [*found["first"], f"{text}: the inputs do not test it"]


def main(options: Options) -> list[dict[str, object]]:
    import torch

    torch.set_num_threads(1)
    names = [*readers(), "requests"]
    unknown = set(options.only) - set(names)
    if unknown:
        raise SystemExit(f"unknown reader {', '.join(sorted(unknown))}: choose among {', '.join(names)}")
    names = list(options.only or names)
    lines = [line for line in lines_of(options.log) if line["seed"] == str(options.seed)]
    reached = {k: sum(line["inputs"] for line in lines if line["reader"] == k) for k in names}
    with tempfile.TemporaryDirectory(prefix="fewseg-fuzz-", dir=in_memory()) as folder:
        while behind := [k for k in names if reached[k] < options.count]:
            name = min(behind, key=reached.__getitem__)
            end = min(options.count, reached[name] + options.part)
            found = campaign(name, options, Path(folder), reached[name], end)
            lines.append({"seed": str(options.seed), **found})
            keep(options.log, lines[-1])
            reached[name] = end
    most = ("slowest s", "most MiB")
    sums = [total((line for line in lines if line["reader"] == k), most) for k in names]
    for each in sums:
        judge(each)
    if options.log is not None:
        print("in all:", *map(json.dumps, sums), sep="\n")
    return sums


if __name__ == "__main__":
    if any(each["wrong"] for each in main(tyro.cli(Options, description=__doc__))):
        sys.exit(1)
