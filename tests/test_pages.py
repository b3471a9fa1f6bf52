"""The pages: their commands are understood or run, their links lead somewhere, and the README keeps its form."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import runpy
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from edge_spine.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "edge_spine" / "INSTALL.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "export" / "README.md",
    ROOT / "edge_spine" / "HAZARDS.md",
    *sorted((ROOT / "edge_spine").rglob("README.md")),
]
MOST_WORDS = 900
# programs of a block that are not ours: nothing is checked about them
OTHERS = {"apt", "awk", "bash", "cat", "cd", "cp", "do", "done", "export", "git", "mkdir", "npm", "python3"}
OTHERS |= {"podman-compose", "sleep", "sudo", "tar"}
# programs of an environment that are not ours either
TOOLS = {"echoscu", "mypy", "pre-commit", "ruff"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEREDOC = re.compile(r"<<'(\w+)'\n.*?^\1$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """One command of a page, split into words; `whole` where it stands in a block and so has all that it needs."""

    page: str
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return [content for kind, content in FENCE.findall(text_of(page)) if kind == language]


def simple_commands(block: str) -> Iterator[str]:
    """Yield the commands of a shell block one by one, variables replaced by their first value."""
    block = _HEREDOC.sub("", block).replace("\\\n", " ")
    values: dict[str, str] = {}
    for line in block.splitlines():
        for part in re.split(r"&&|;|\|\||&\s*$", re.sub(r"(^|\s)#.*$", "", line)):
            command = re.sub(r"\$\(\(.*?\)\)", "1", part.strip())
            if found := re.fullmatch(r"(\w+)=(\S*)", command) or re.fullmatch(r"for (\w+) in (\S+).*", command):
                values.setdefault(*found.groups())
            elif command:
                yield re.sub(r"\$(\w+)", lambda match: values.get(match[1], match[1]), command)


def commands(page: Path) -> Iterator[Command]:
    """Yield the commands of a page: those of its shell blocks, and of ours those within its sentences."""
    for block in blocks(page, "sh"):
        for command in simple_commands(block):
            yield Command(name_of(page), tuple(shlex.split(command)), whole=True)
    for code in re.findall(r"`([^`]+)`", FENCE.sub("", text_of(page))):
        words = code.split()
        if len(words) > 1 and re.fullmatch(r"(\.venv/bin/)?(edge-spine|python|pip)", words[0]):
            yield Command(name_of(page), tuple(shlex.split(code)), whole=False)


COMMANDS = sorted({command for page in PAGES for command in commands(page)}, key=str)


class _Understood(BaseException):
    """Raised in place of what a command would do once its arguments are parsed."""


@pytest.fixture
def only_parsing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let programs parse their arguments and do nothing more."""
    parse = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> NoReturn:
        parse(self, args, namespace)
        raise _Understood

    # reports go to a folder that earlier commands of the page have made
    (tmp_path / "cache").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    for folder in (ROOT, ROOT / "benchmarks"):
        monkeypatch.syspath_prepend(str(folder))


def call(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Start one of our programs in this process: `edge-spine ...`, `python -m MODULE ...` or `python FILE ...`."""
    if words[0] == "edge-spine":
        pytest.fail(f"exit status {main(words[1:])}")
    monkeypatch.setattr(sys, "argv", words[2:] if words[1] == "-m" else words[1:])
    if words[1] == "-m":
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(str(ROOT / words[1]), run_name="__main__")


def options_of(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the help text of a program."""
    monkeypatch.setenv("COLUMNS", "200")
    end = 2 if words[0] == "edge-spine" or words[1] != "-m" else 3
    if words[0] == "edge-spine":
        assert main([*words[1:end], "--help"]) == 0
    else:
        with pytest.raises(SystemExit) as stopped:
            call([*words[:end], "--help"], monkeypatch)
        assert not stopped.value.code
    return capsys.readouterr().out


def check_python(words: list[str]) -> bool:
    """Check a call of Python that is no program of ours; tell whether it was one."""
    if words[1:3] == ["-m", "pytest"]:
        paths = [word for word in words[3:] if word.startswith("tests/")]
        assert all((ROOT / path).exists() for path in paths), paths
        return True
    return words[1:3] in (["-m", "venv"], ["-m", "build"])


def extras() -> set[str]:
    toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    project = toml.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return set(project["optional-dependencies"])


def check_pip(words: list[str]) -> None:
    for word in words:
        if found := re.fullmatch(r"\.\[(.*)\]", word):
            assert set(found[1].split(",")) <= extras(), word
        assert not word.startswith("edge-spine"), "the package is on no index: install '.[...]'"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_is_understood(
    command: Command,
    only_parsing: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = list(command.words)
    folder, _, program = words[0].rpartition("/")
    if not folder and command.whole:
        assert program in OTHERS, f"{program} is neither in the environment nor a known program"
        return
    assert folder in ("", ".venv/bin", ".venv-test/bin")
    words[0] = program
    if program == "pip":
        check_pip(words)
    elif program in TOOLS or (program == "python" and check_python(words)):
        pass
    elif command.whole:
        pytest.importorskip("torch", reason="install '.[export]'")
        with pytest.raises(_Understood):
            call(words, monkeypatch)
    else:
        pytest.importorskip("torch", reason="install '.[export]'")
        known = options_of(words, monkeypatch, capsys)
        for word in words:
            if word.startswith("--"):
                assert re.search(rf"{re.escape(word)}\b", known), f"no option {word}"


def test_a_wrong_command_would_be_found(only_parsing: None, monkeypatch: pytest.MonkeyPatch) -> None:
    block = "a=b.dcm\n.venv/bin/edge-spine demo --nowhere $a && .venv/bin/python -m export.nothing  # why\n"
    wrong = [shlex.split(command) for command in simple_commands(block)]
    assert wrong == [
        [".venv/bin/edge-spine", "demo", "--nowhere", "b.dcm"],
        [".venv/bin/python", "-m", "export.nothing"],
    ]
    with pytest.raises(pytest.fail.Exception, match="exit status 2"):
        call(["edge-spine", *wrong[0][1:]], monkeypatch)
    with pytest.raises(ImportError):
        call(["python", *wrong[1][1:]], monkeypatch)
    with pytest.raises(AssertionError):
        check_pip(["pip", "install", "edge-spine[cpu]"])


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a folder that looks like a clone whose environment, this interpreter's, is ready."""
    for name in ("edge_spine", "export", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name, target_is_directory=True)
    programs = {
        ".venv/bin/edge-spine": f'exec {shlex.quote(sys.executable)} -m edge_spine "$@"',
        ".venv/bin/python": f'exec {shlex.quote(sys.executable)} "$@"',
        ".venv/bin/pip": "exit 0",
        "stubs/python3": "exit 0",
    }
    for name, does in programs.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{does}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return tmp_path


def run_block(block: str, folder: Path) -> str:
    """Run a shell block literally, and return what it wrote to stdout."""
    environment = os.environ | {
        "PATH": f"{folder / 'stubs'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout


needs_shell = pytest.mark.skipif(
    shutil.which("bash") is None or sys.platform == "win32", reason="bash and symbolic links are needed"
)


@needs_shell
@pytest.mark.slow
def test_the_commands_of_the_readme_run(clone: Path) -> None:
    for package in ("onnxruntime", "highdicom", "reportlab", "trimesh", "pyarrow"):
        pytest.importorskip(package, reason="install '.[cpu,batch,dicom,report]'")
    first, more, test = blocks(ROOT / "README.md", "sh")
    assert "pytest" in test
    run_block(first, clone)
    scan = "synthetic_whole_body"
    assert {path.name for path in (clone / "out" / scan).iterdir()} == {"result.json", "spine.ply", "preview.png"}
    run_block(more, clone)
    assert len(list((clone / "results" / scan).iterdir())) == 10
    for name in ("results-lite", "change"):
        assert any((clone / name).iterdir()), name
    assert list((clone / "cohort" / "shards").glob("part-*.parquet"))


@pytest.mark.slow
def test_the_python_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="install '.[cpu]'")
    monkeypatch.chdir(ROOT)
    (code,) = blocks(ROOT / "README.md", "python")
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["result"].spine.centreline.shape == (209, 3)


@needs_shell
@pytest.mark.slow
def test_the_command_of_cohorts_is_the_readmes_and_that_of_the_watch_folder_runs(clone: Path) -> None:
    for package in ("onnxruntime", "filelock"):
        pytest.importorskip(package, reason="install '.[cpu,node]'")
    *_, batch = simple_commands(blocks(ROOT / "edge_spine" / "cohort" / "README.md", "sh")[0])
    assert "edge-spine batch" in batch and batch in simple_commands(blocks(ROOT / "README.md", "sh")[1])
    shown = run_block(blocks(ROOT / "edge_spine" / "node" / "README.md", "sh")[1], clone)
    assert "synthetic_whole_body" in shown and (clone / "incoming" / "done").is_dir()


def test_the_configurations_of_the_node_page_are_valid(tmp_path: Path) -> None:
    for package in ("pynetdicom", "highdicom"):
        pytest.importorskip(package, reason="install '.[node]'")
    from edge_spine.node.config import load_config

    page = ROOT / "edge_spine" / "node" / "README.md"
    (written,) = re.findall(r"> node\.toml <<'END'\n(.*?)^END$", text_of(page), re.MULTILINE | re.DOTALL)
    (tmp_path / "node.toml").write_text(written, encoding="utf-8")
    assert load_config(tmp_path / "node.toml").port == 11112


def slug(heading: str) -> str:
    """Return a heading's anchor as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text_of(page))):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text_of(target)), re.MULTILINE)
            assert anchor in map(slug, headings), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_nothing_is_installed_from_an_index_that_lacks_it(page: Path) -> None:
    text = text_of(page)
    assert "edge-spine[" not in text
    assert page.name != "README.md" or page.parent == ROOT or ".venv\\Scripts" not in text


def powershell_commands() -> list[tuple[str, str]]:
    """Return name and text of each command in the blocks for PowerShell, which must be free of errors of syntax."""
    tree_sitter = pytest.importorskip("tree_sitter", reason="install '.[test]'")
    grammar = pytest.importorskip("tree_sitter_powershell", reason="install '.[test]'")
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    found = []
    for page in PAGES:
        for block in blocks(page, "powershell"):
            nodes = [parser.parse(block.encode()).root_node]
            assert not nodes[0].has_error, f"{name_of(page)}: {nodes[0]}"
            while nodes:
                node = nodes.pop(0)
                nodes = node.children + nodes
                if node.type == "command":
                    found.append((node.child_by_field_name("command_name").text.decode(), node.text.decode()))
    return found


def test_the_commands_for_windows_are_powershell_and_ours_are_understood(
    only_parsing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = 0
    for name, text in powershell_commands():
        words = [word.strip("'") for word in re.split(r" +(?=(?:[^']*'[^']*')*[^']*$)", text)]
        program = name.removeprefix(".venv\\Scripts\\")
        if program == "pip":
            check_pip(words)
            for path in (word for word in words if word.startswith(".ci\\constraints")):
                assert (ROOT / path.replace("\\", "/")).is_file(), path
        elif program == "edge-spine":
            ours += 1
            with pytest.raises(_Understood):
                call([program, *words[1:]], monkeypatch)
        else:
            assert name in ("py", "icacls") or re.fullmatch("(New|Register|Write)-[A-Za-z]+", name), text
    assert ours >= 4


def test_the_readme_is_short() -> None:
    assert len(text_of(ROOT / "README.md").split()) <= MOST_WORDS


def test_the_readme_begins_as_the_contract_says() -> None:
    text = text_of(ROOT / "README.md")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE)[:2] == ["Run it", "Test it"]
    for heading in ("Run it", "Test it"):
        after = text.split(f"\n## {heading}\n")[1].lstrip()
        assert after.startswith("```sh\npython3 -m venv "), heading
    assert re.search(r"git clone --depth 1 URL ", text)


@pytest.mark.parametrize(
    ("row", "report"),
    [
        ("people unseen in training, `spine`", "spine.people"),
        ("the same, `lite`", "spine-lite.people"),
        ("phantoms unseen in training, `spine`", "spine.evaluation"),
    ],
)
def test_the_figures_of_the_readme_are_those_of_the_reports(row: str, report: str) -> None:
    found = json.loads((ROOT / "export" / "weights" / f"{report}.json").read_text(encoding="utf-8"))
    names = ("sagittal_mae_mm", "deviation3d_mm", "iou3d")
    cells = [f"{found[name]:.2f} ({found['baseline'][name]:.2f})" for name in names]
    cobb = [found.get(f"endplate_cobb_{what}_deg") for what in ("mae", "bias")]
    cells.append("" if None in cobb else "{:.1f} ({:.1f})".format(*cobb))
    assert f"| {row} | {' | '.join(cells)} |" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_private_names_on_pages_are_in_the_code() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "edge_spine").rglob("*.py"))
    pages = [page for page in PAGES if page.name != "CHANGELOG.md"]
    named = {name for page in pages for name in re.findall(r"`(_[a-z_]+)`", page.read_text(encoding="utf-8"))}
    assert named and [name for name in named if name not in re.findall(r"\w+", code)] == []
