"""Runs the code blocks of README and guides, as they stand, on drawn pictures and without a network.

``python scripts/docs_blocks.py [PAGE ...]`` runs the ``python`` and ``sh`` blocks of each page in order, in a
new folder that has the example pictures of ``docs/start.md``. A page's Python blocks share their variables;
one with ``title="FILE"`` is written to that file. The line ``<!-- not run: REASON -->`` before a block leaves
it out; these are listed. Weights and the small real set are replaced by random weights and drawn pictures, so
that nothing is downloaded.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import save_file

from fewseg.backbones import BackboneConfig
from fewseg.data import SyntheticSource
from fewseg.data.folds import even_split
from fewseg.data.synthetic import SYNTHETIC_CLASSES

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/start.md", "docs/guides/*.md")
EXAMPLES = ROOT / "docs" / "start.md"
"""The page whose first Python block draws the example pictures of all pages."""

JOBS = 2
"""Pages that run at the same time."""

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>.*)$")
_TITLE = re.compile(r'title="(?P<file>[^"]+)"')
_NOT_RUN = re.compile(r"^ *<!-- not run: (?P<reason>.+) -->$")
_RUN = {"python", "sh"}
_SHOWN = {"text", "json", "yaml", "toml", "math"}


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: Path
    line: int
    language: str
    code: str
    not_run: str = ""
    file: str = ""  # where the page says to write it

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page that are code."""
    lines = page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        if fence is None:
            at += 1
            continue
        language, indent = fence["info"].split(" ")[0], len(fence["indent"])
        end = next(i for i in range(at + 1, len(lines)) if lines[i].strip() == "```")
        before = next((text for text in reversed(lines[:at]) if text.strip()), "")
        mark = _NOT_RUN.match(before)
        if language in _RUN:
            code = "\n".join(line[indent:] for line in lines[at + 1 : end])
            title = _TITLE.search(fence["info"])
            yield Block(
                page, at + 1, language, code, mark["reason"] if mark else "", title["file"] if title else ""
            )
        elif language not in _SHOWN:
            raise SystemExit(
                f"{page}:{at + 1}: the language of a block must be one of {sorted(_RUN | _SHOWN)}, "
                f"got {fence['info']!r}"
            )
        at = end + 1


def write_stand_ins(folder: Path) -> None:
    """Random weights where downloaded ones lie, and a drawn set in the form of the small real one."""
    published = BackboneConfig(weights=None, levels=("layer4",)).build().trunk.state_dict()
    snapshot = folder / "huggingface" / "hub" / "models--timm--resnet50.tv_in1k"
    (snapshot / "refs").mkdir(parents=True)
    (snapshot / "refs" / "main").write_text("0" * 40)
    (snapshot / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(published, snapshot / "snapshots" / ("0" * 40) / "model.safetensors")

    (folder / "weights").mkdir()
    kept = {key: value for key, value in published.items() if not key.startswith("layer4")}
    save_file(kept, folder / "weights" / "resnet50-v1-trunk.safetensors")

    root = folder / "data" / "voc5i-mini"
    for name in ("images", "masks", "lists"):
        (root / name).mkdir(parents=True)
    for fold in range(4):
        split = even_split(SYNTHETIC_CLASSES, folds=4, fold=fold, name="drawn")
        parts = {
            "train": SyntheticSource(30, 193, classes=split.base),
            "val": SyntheticSource(60, 193, split="val"),
        }
        for kind, source in parts.items():
            rows = []
            for id in source.ids:
                name = f"{id}-{fold}" if kind == "train" else id
                Image.fromarray(source.read_image(id).permute(1, 2, 0).numpy()).save(
                    root / "images" / f"{name}.png"
                )
                Image.fromarray(source.read_labels(id).numpy()).save(root / "masks" / f"{name}.png")
                rows.append(f"images/{name}.png masks/{name}.png")
            (root / "lists" / f"fold{fold}_{kind}.txt").write_text("\n".join(rows) + "\n")


def use_stand_ins(folder: Path) -> None:
    """Writes the stand-ins and points the environment of this process and its children at them."""
    shared = folder / "shared"
    shared.mkdir()
    write_stand_ins(shared)
    os.environ |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HF_HOME": str(shared / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "FEWSEG_SHARED": str(shared),
        "FEWSEG_CACHE": str(folder / "cache"),
    }


def run_page(page: Path, parts: list[Block], setup: Block, folder: Path) -> bool:
    """Runs the blocks of a page in a new folder; whether all of them worked."""
    folder.mkdir()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    if page != EXAMPLES:
        exec(compile(setup.code, setup.place, "exec"), {"__name__": "examples"})
    variables: dict[str, Any] = {"__name__": "page"}
    for block in parts:
        if block.not_run:
            print(f"  not run  {block.place}: {block.not_run}")
            continue
        started = time.perf_counter()
        try:
            if block.file:
                (folder / block.file).write_text(block.code + "\n", encoding="utf-8")
            elif block.language == "python":
                exec(compile("\n" * block.line + block.code, str(page), "exec"), variables)
            else:
                subprocess.run(["bash", "-euo", "pipefail", "-c", block.code], check=True)
        except BaseException:
            traceback.print_exc()
            print(f"  FAILED   {block.place}\n{block.code}")
            return False
        print(f"  {time.perf_counter() - started:5.1f} s  {block.place} ({block.language})", flush=True)
    return True


def main() -> int:
    """Runs the pages of the command line, by default all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, help="Markdown files; README and guides by default")
    given = [page.resolve() for page in parser.parse_args().pages]
    pages = given or [page for pattern in PAGES for page in sorted(ROOT.glob(pattern))]
    found = {page: list(blocks(page)) for page in pages}
    setup = next(block for block in blocks(EXAMPLES) if block.language == "python")
    with tempfile.TemporaryDirectory(prefix="fewseg-docs-") as temporary:
        use_stand_ins(Path(temporary))
        folders = [Path(temporary, str(place)) for place in range(len(found))]
        work = (found, found.values(), repeat(setup), folders)
        with ProcessPoolExecutor(JOBS, mp_context=get_context("spawn")) as pool:  # pages are independent
            worked = list(pool.map(run_page, *work))
    left_out = sum(bool(block.not_run) for parts in found.values() for block in parts)
    total = sum(map(len, found.values()))
    print(f"{total - left_out} blocks run, {left_out} not run, {worked.count(False)} pages failed")
    return not all(worked)


if __name__ == "__main__":
    sys.exit(main())
