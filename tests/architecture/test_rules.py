"""Rules of the house that a reader can rely on."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "fewseg"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [file.relative_to(PACKAGE).as_posix() for file in FILES]


@pytest.fixture(params=FILES, ids=NAMES)
def file(request):
    return request.param


def test_there_is_a_package_to_look_at():
    assert len(FILES) > 50


def test_imports_go_one_way():
    """The contracts of import-linter in pyproject.toml."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def import_graph():
    """Module to the modules of the package that it imports, wherever in the file."""
    modules = {}
    for file in FILES:
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(file.read_text())
    graph = {}
    for name, tree in modules.items():
        found = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                found |= {full if full in modules else node.module for full in names}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
        graph[name] = (found & modules.keys()) - {name}
    return graph


def test_no_import_circle():
    """Modules without an import left to resolve are taken away until none is left."""
    graph = import_graph()
    while leaves := [name for name, imported in graph.items() if not imported & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph, f"in a circle, or behind one: {sorted(graph)}"


def public(tree):
    """Every public class, function and method, with its qualified name; overloads and nested ones aside."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                overload = any(ast.unparse(d) == "overload" for d in getattr(inner, "decorator_list", ()))
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_") and not overload:
                    yield f"{node.name}.{inner.name}", inner


def test_everything_public_has_a_docstring(file):
    tree = ast.parse(file.read_text())
    assert ast.get_docstring(tree), "the module has none"
    without = [name for name, node in public(tree) if not ast.get_docstring(node)]
    assert not without


def calls(tree):
    """(dotted name, call) of every call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_no_device_is_written_into_the_code_and_nothing_is_printed(file):
    for name, call in calls(ast.parse(file.read_text())):
        assert not name.endswith(".cuda"), f"line {call.lineno}: take the device of an input"
        assert name != "print", f"line {call.lineno}: use logging"


def test_no_file_is_unpickled_but_weights_only(file):
    source = file.read_text()
    for name, call in calls(ast.parse(source)):
        words = {k.arg: k.value for k in call.keywords}
        if name == "torch.load":
            kept = words.get("weights_only")
            assert isinstance(kept, ast.Constant), f"line {call.lineno}"
            assert kept.value is True, f"line {call.lineno}"
        if name in ("np.load", "numpy.load"):
            assert not isinstance(words.get("allow_pickle"), ast.Constant) or not words["allow_pickle"].value
        assert not re.fullmatch(r"(pickle|dill|joblib|cloudpickle)\.(loads?|Unpickler)", name)
        assert name not in ("eval", "exec", "os.system")


def test_no_global_random_state_is_drawn_from(file):
    """Generators are made of (seed, index); the one global that a loop may seed is torch's, for dropout."""
    for name, call in calls(ast.parse(file.read_text())):
        assert not re.match(r"(np|numpy)\.random\.(?!Generator|PCG64|default_rng)", name), (
            f"line {call.lineno}"
        )
        assert not re.match(r"random\.(?!Random)", name), f"line {call.lineno}"


@pytest.mark.parametrize("word", ["utils", "common", "helpers", "misc"])
def test_no_drawer_for_odds_and_ends(word):
    assert not [name for name in NAMES if Path(name).stem == word or word in Path(name).parts]


def test_the_package_imports_without_gpu_and_without_network():
    """In a process whose sockets raise and which sees no GPU."""
    code = """
import os, socket, sys
os.environ["CUDA_VISIBLE_DEVICES"] = ""
def refuse(*args, **kwargs):
    raise AssertionError("the import opened a connection")
socket.socket.connect = refuse
socket.create_connection = refuse
socket.getaddrinfo = refuse
import fewseg.cli, fewseg.recipes.run, fewseg.engine.released, fewseg.demo.run, fewseg.reports.tables
import torch
assert not torch.cuda.is_initialized()
from fewseg.recipes.registry import RECIPES
[make() for make in RECIPES.values()]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
