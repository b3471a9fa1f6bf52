"""The import graph of the package: no cycle, no arrow upwards, no PyTorch, no file that is too long, none untested."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A module imports only from the rows above its own, and from its own room. Rooms that share a row import nothing from
# each other. Every module of the package is in one of them.
ORDER = (
    (
        *("errors", "version", "files", "network", "vertebrae", "scan", "quantities"),
        *("csv_tables", "lending", "processors", "products", "streams"),
    ),
    ("reading", "npz"),
    ("preprocessing",),
    ("reconstruct", "smooth_fit"),
    ("measure", "metrics", "refine"),
    ("locate",),
    ("bundle",),
    ("engines",),
    ("quality", "disturbance"),
    ("result",),
    ("estimator", "comparison"),
    ("outputs",),
    ("runner",),
    ("cohort", "node"),
    ("cli",),
    ("__init__", "__main__"),
)
ROW = {room: row for row, rooms in enumerate(ORDER) for room in rooms}
TREES = ("edge_spine", "export", "benchmarks")
MOST_LINES = 400
# Modules of edge_spine without a test file of their name, each with its reason.
WITHOUT_TESTS = {
    "__main__": "one call of main, made by each test that starts the command in a process of its own",
    "version": "one constant",
    "cohort/workers": "an interface; its three implementations are tested in pool, on_ray and on_dask",
}
# Test files of edge_spine that no module names: their subject is several modules, or a file that is none.
OF_NO_MODULE = {
    "test_lite": "the second packaged model, through the whole package",
    "test_whole_path": "every step in one walk, on real and bundled scans",
    "node/test_containers": "the files of the containers",
    "node/test_privacy": "whatever node and watch folder leave behind",
    "node/test_round_trip": "from a scanner to an archive",
    "node/test_unit": "the unit file of systemd",
    "outputs/test_ohif": "the structured report in the real viewer",
    "outputs/test_meshes": "one surface in three formats",
    "outputs/test_report_readers": "the structured report in programs that are not ours",
    "outputs/report/test_browser": "the page and its viewer in a browser",
}


def sources(*folders: str) -> dict[str, Path]:
    """Return the modules below some folders by their dotted names."""
    found = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """Return the imports anywhere in a file: within functions and under TYPE_CHECKING too."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def imported(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """Yield the modules that a file imports."""
    for node in imports(path):
        if isinstance(node, ast.Import):
            names = [name for alias in node.names for name in (alias.name, f"benchmarks.{alias.name}")]
            yield from (name for name in names if name in modules)
        else:
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                # Scripts in benchmarks/ import each other by their bare names.
                for name in (whole, str(node.module), f"benchmarks.{node.module}"):
                    if name in modules:
                        yield name
                        break


def graph(*folders: str) -> dict[str, set[str]]:
    modules = sources(*folders)
    return {name: set(imported(path, modules)) - {name} for name, path in modules.items()}


def cycle_in(arrows: dict[str, set[str]]) -> list[str]:
    """Return the modules of one cycle, or nothing."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name not in done:
            for target in sorted(arrows[name]):
                if found := visit(target, [*way, name]):
                    return found
            done.add(name)
        return []

    return next((found for name in sorted(arrows) if (found := visit(name, []))), [])


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("folders", [("edge_spine",), ("edge_spine", "export"), ("edge_spine", "export", "benchmarks")])
def test_no_import_cycle(folders: tuple[str, ...]) -> None:
    assert cycle_in(graph(*folders)) == []


def test_a_cycle_would_be_found() -> None:
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_every_room_is_in_the_order_and_exists() -> None:
    assert {room(module) for module in graph("edge_spine")} == set(ROW)


def test_no_arrow_upwards() -> None:
    upwards = [
        f"{module} imports {target}"
        for module, targets in graph("edge_spine").items()
        for target in sorted(targets)
        if room(target) != room(module) and ROW[room(target)] >= ROW[room(module)]
    ]
    assert upwards == []


def test_the_package_imports_nothing_of_export_benchmarks_or_tests() -> None:
    others = sources("export", "benchmarks", "tests")
    arrows = {module: set(imported(path, others)) for module, path in sources("edge_spine").items()}
    assert {module: targets for module, targets in arrows.items() if targets} == {}


def test_the_package_never_imports_torch() -> None:
    for path in sources("edge_spine").values():
        for node in imports(path):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert "torch" not in {name.partition(".")[0] for name in names}, path


def test_no_file_is_too_long() -> None:
    long = {
        str(path.relative_to(ROOT).as_posix())
        for path in sources(*TREES, "tests").values()
        if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES
    }
    assert long == set()


def test_nothing_is_installed_from_an_index_that_lacks_it() -> None:
    """A message says `pip install '.[EXTRA]'`, as the pages do: no index has a package of this name."""
    wrong = [name for name, path in sources(*TREES).items() if "edge-spine[" in path.read_text(encoding="utf-8")]
    assert wrong == []


def test_each_module_has_tests_of_its_name() -> None:
    tree, tests = ROOT / "edge_spine", ROOT / "tests/edge_spine"
    modules = {name_of(path, tree) for path in tree.rglob("*.py") if path.name != "__init__.py"}
    tested = {name_of(path, tests) for path in tests.rglob("test_*.py")}
    expected = {f"{folder}test_{name}" for folder, name in map(split, modules - set(WITHOUT_TESTS))}
    assert {"without a test": expected - tested, "of no module": tested - expected - set(OF_NO_MODULE)} == {
        "without a test": set(),
        "of no module": set(),
    }
    # each exception is one still
    assert set(WITHOUT_TESTS) <= modules and set(OF_NO_MODULE) <= tested - expected


def name_of(path: Path, folder: Path) -> str:
    """Return a path without suffix, relative to a folder."""
    return path.relative_to(folder).with_suffix("").as_posix()


def split(name: str) -> tuple[str, str]:
    """Split the path of a module into its folder, with the slash, and its name."""
    folder, slash, last = name.rpartition("/")
    return folder + slash, last


def test_a_room_names_its_door() -> None:
    for path in (ROOT / "edge_spine").rglob("__init__.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert docstring, path
        assert path.parent == ROOT / "edge_spine" or "`" in docstring, path
