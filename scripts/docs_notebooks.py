"""Runs the notebooks of the site with the stand-ins of ``docs_blocks``; they must hold no outputs."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from docs_blocks import ROOT, use_stand_ins


def main() -> int:
    """Runs the notebooks of the command line, by default all of them."""
    notebooks = [Path(name).resolve() for name in sys.argv[1:]] or sorted(ROOT.glob("docs/notebooks/*.ipynb"))
    failed = []
    with tempfile.TemporaryDirectory(prefix="fewseg-notebooks-") as temporary:
        use_stand_ins(Path(temporary))
        os.environ["MPLBACKEND"] = "agg"
        for path in notebooks:
            notebook, started = nbformat.read(path, as_version=4), time.perf_counter()
            if any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells):
                print(f"{path.name} holds outputs: strip them (`jupyter nbconvert --clear-output --inplace`)")
                failed.append(path)
            folder = Path(temporary, path.stem)
            folder.mkdir()
            try:
                NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}}).execute()
            except CellExecutionError as error:
                print(error)
                failed.append(path)
            print(f"{time.perf_counter() - started:5.1f} s  {path.name}", flush=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
