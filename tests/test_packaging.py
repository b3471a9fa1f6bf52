"""Wheel and source distribution: they hold what they name, under the one version; the pins fit the extras."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from edge_spine.version import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# From these the viewer of the report is built: the wheel holds the result.
SOURCES_OF_VIEWER = {"build.mjs", "package.json", "package-lock.json", "viewer.js"}
LARGEST = 1_000_000
BUILD = "from setuptools import build_meta as b; b.build_wheel('dist'); b.build_sdist('dist')"


def tracked() -> list[str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no clone: the tracked files are not known")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str], Path]:
    """Return the files of wheel and source distribution, built from the tracked files; large ones are shortened."""
    pytest.importorskip("setuptools", minversion="70.1", reason="install '.[test]'")
    copy = tmp_path_factory.mktemp("clone")
    for name in tracked():
        if not name.endswith(".safetensors"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes()[:LARGEST])
    (copy / "edge_spine/outputs/report/node_modules").mkdir()
    (copy / "edge_spine/outputs/report/node_modules/README.md").write_text("not ours", encoding="utf-8")
    subprocess.run([sys.executable, "-c", BUILD], cwd=copy, check=True, capture_output=True)
    (wheel,), (sdist,) = (copy / "dist").glob("*.whl"), (copy / "dist").glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    return in_wheel, in_sdist, wheel


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(built: tuple[set[str], set[str], Path]) -> None:
    in_wheel, _, wheel = built
    ours = {name for name in tracked() if name.startswith("edge_spine/") and Path(name).name not in SOURCES_OF_VIEWER}
    assert "edge_spine/node/README.md" in ours
    assert {name for name in in_wheel if name.startswith("edge_spine/")} == ours
    assert wheel.name.split("-")[1] == __version__


@pytest.mark.slow
def test_the_source_distribution_holds_every_file_but_the_float_weights(built: tuple[set[str], set[str], Path]) -> None:
    _, in_sdist, _ = built
    assert {name for name in tracked() if not name.endswith(".safetensors")} - in_sdist == set()
    assert not [name for name in in_sdist if "node_modules" in name or name.endswith((".safetensors", ".pyc"))]


def test_the_version_is_the_newest_of_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(.*?)\]", changelog, re.MULTILINE)
    assert newest is not None and newest[1] == __version__


def test_messages_name_only_pages_that_are_installed() -> None:
    """A page beside the code is named by its path on this machine, for a relative one exists only in a clone."""
    for path in (ROOT / "edge_spine").rglob("*.py"):
        relative = re.findall(
            r"""["'][^"'\n]*\b(?:edge_spine|export|benchmarks)/[\w/]*\w\.md""", path.read_text("utf-8")
        )
        assert relative == [], path


def pinned(extra: str) -> dict[str, list[str]]:
    """Return the pins of a file of constraints with those that it includes: name, versions."""
    pins: dict[str, list[str]] = {}
    lines = (
        (ROOT / ".ci" / "constraints" / f"{extra}.txt").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    )
    for line in lines:
        if line.startswith("-r "):
            pins |= pinned(line[3:].removesuffix(".txt"))
        elif line and not line.startswith("#"):
            assert re.search(r" --hash=sha256:[0-9a-f]{64}", line), line
            name, _, version = line.split()[0].partition("==")
            pins.setdefault(name, []).append(version)
    return pins


@pytest.fixture(scope="module")
def supply() -> ModuleType:
    spec = importlib.util.spec_from_file_location("supply", ROOT / ".ci" / "supply.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_package_of_every_extra_is_pinned_with_a_hash(supply: ModuleType) -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(extras) - set(supply.EXTRAS) == {"tensorrt-cu12", "tensorrt-cu13", "export", "test"}
    assert {path.stem for path in (ROOT / ".ci" / "constraints").iterdir()} == {"base", *supply.EXTRAS}
    for extra in supply.EXTRAS:
        pins = pinned(extra)
        for requirement in [*PROJECT["dependencies"], *extras[extra]]:
            name = re.match(r"[\w.-]+", requirement)[0]  # type: ignore[index]
            assert name == "edge-spine" or name in pins, f"{extra}: {name}: python .ci/supply.py lock"


def test_a_wheel_that_is_missing_is_known_and_one_known_to_be_is(
    supply: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def uv(*words: object) -> subprocess.CompletedProcess[str]:
        files = [word.stem for word in words if isinstance(word, Path)]
        lacks = "ray" in files and "3.14" in words
        return subprocess.CompletedProcess([], int(lacks), "", "no wheel\n" if lacks else "")

    monkeypatch.setattr(supply, "uv", uv)
    monkeypatch.setattr(supply, "MISSING", {("ray", "", "3.14"): "none yet"})
    assert supply.resolve() == 0
    monkeypatch.setattr(supply, "MISSING", {})
    assert supply.resolve() == 1 and "x86_64-manylinux_2_28 3.14: no wheel" in capsys.readouterr().out
    monkeypatch.setattr(supply, "MISSING", {("ray", "", "3.14"): "", ("cpu", "", "3.10"): "stale"})
    assert supply.resolve() == 1 and "cpu: is in MISSING and has all wheels" in capsys.readouterr().out


def test_an_index_that_was_not_fetched_is_no_missing_wheel(supply: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[bool, str] = {
        True: "Because there is no version of numpy==2.4.6 and you require numpy==2.4.6",
        False: "",
    }

    def uv(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", said["--offline" in words])

    monkeypatch.setattr(supply, "uv", uv)
    with pytest.raises(SystemExit):  # the first fetch fails
        supply.resolve()
    monkeypatch.setattr(supply, "uv", lambda *words: uv(*words) if "--offline" in words else fetched)
    fetched = subprocess.CompletedProcess([], 0, "", "")
    with pytest.raises(SystemExit, match="not in the index"):
        supply.resolve()


@pytest.mark.parametrize(("status", "said", "surprises"), [(0, "warning: slow", 0), (-9, "", 20)])
def test_what_counts_is_whether_uv_succeeded(
    status: int,
    said: str,
    surprises: int,
    supply: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def uv(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], status if "--offline" in words else 0, "", said)

    monkeypatch.setattr(supply, "uv", uv)
    monkeypatch.setattr(supply, "MISSING", {})
    assert supply.resolve() == bool(surprises)
    printed = capsys.readouterr().out
    assert f": {surprises} surprises" in printed
    assert printed.count("uv ended with status -9") == surprises
