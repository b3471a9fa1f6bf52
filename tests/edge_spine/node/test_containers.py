"""The container files: unprivileged users, read-only roots and health checks; matching settings of node and archive."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "edge_spine" / "node" / "containers"
FILES = ("Containerfile", "Archive.Containerfile")


def instructions(file: str) -> list[str]:
    text = (FOLDER / file).read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("file", FILES)
def test_a_container_runs_as_a_user_without_rights(file: str) -> None:
    lines = instructions(file)
    kinds = [line.split()[0] for line in lines]
    known = {"ARG", "FROM", "RUN", "COPY", "ENV", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert set(kinds) <= known and "HEALTHCHECK" in kinds
    for line in lines:
        if line.startswith("COPY"):
            assert all((ROOT / source).exists() for source in line.split()[1:-1]), line
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users and users[-1].partition(":")[0] not in ("root", "0")
    assert kinds.index("USER") < kinds.index("ENTRYPOINT")
    assert not [line for line in lines if ":latest" in line]
    for line in lines:
        if "apt-get install" in line:
            assert "--no-install-recommends" in line and "rm -rf /var/lib/apt/lists" in line


@pytest.mark.parametrize("file", FILES)
def test_hadolint_finds_nothing(file: str) -> None:
    linter = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if linter is None:
        pytest.skip("hadolint is not installed")
    # DL3008 wants Debian's packages pinned, whose versions are those of the base image
    command = [linter, "--no-color", "--ignore", "DL3008", str(FOLDER / file)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_what_is_written_lies_in_volumes_so_that_the_root_can_be_read_only() -> None:
    lines = instructions("Containerfile")
    volumes = " ".join(line for line in lines if line.startswith("VOLUME"))
    (cache,) = (
        word.partition("=")[2] for line in lines for word in line.split() if word.startswith("EDGE_SPINE_CACHE=")
    )
    assert any(cache.startswith(folder.strip('"[],')) for folder in volumes.split()[1:])


def test_the_trial_says_how_it_is_called_and_where_it_cannot_run(tmp_path: Path) -> None:
    if (bash := shutil.which("bash")) is None or os.name != "posix":
        pytest.skip("needs bash")
    text = (FOLDER / "try.sh").read_text(encoding="utf-8")
    assert subprocess.run([bash, "-n"], input=text, text=True, check=False).returncode == 0
    asked = subprocess.run([bash, str(FOLDER / "try.sh")], capture_output=True, text=True, check=False)
    assert asked.returncode == 2 and "containers/try.sh WORK" in asked.stderr
    nobody: dict[str, int] = {"user": 65534} if os.geteuid() == 0 else {}
    command = [bash, "-s", str(tmp_path / "work")]
    ended = subprocess.run(command, input=text, capture_output=True, text=True, check=False, cwd="/", **nobody)
    assert ended.returncode == 77 and ended.stderr.startswith("containers cannot be tried here: only root")


@pytest.mark.slow
def test_node_and_archive_run_in_containers() -> None:
    if not (work := os.environ.get("EDGE_SPINE_CONTAINERS")):
        pytest.skip("takes minutes and root: EDGE_SPINE_CONTAINERS=FOLDER asks for it")
    ended = subprocess.run([str(FOLDER / "try.sh"), work], capture_output=True, text=True, check=False, timeout=3600)
    if ended.returncode == 77:
        pytest.skip(ended.stderr.splitlines()[-1])
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout


def test_the_composed_services_are_hardened_and_checked() -> None:
    yaml = pytest.importorskip("yaml", reason="install '.[test]'")
    composed = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    assert set(composed["services"]) == {"node", "archive"}
    for name, service in composed["services"].items():
        file = service["build"]["dockerfile"]
        lines = instructions(Path(file).name)
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"] and service["tmpfs"] == ["/tmp"]
        assert f"USER {service['user']}" in lines and not service["user"].startswith("0")
        (check,) = (line for line in lines if line.startswith("HEALTHCHECK"))
        command = shlex.join(json.loads(check.partition(" CMD ")[2]))
        assert service["healthcheck"]["test"] == ["CMD-SHELL", command]
        declared = {line.split(maxsplit=1)[1] for line in lines if line.startswith("VOLUME")}
        mounted = [volume.split(":")[1] for volume in service["volumes"] if not volume.endswith(":ro")]
        assert declared == {json.dumps(mounted)}
        assert set(service["build"].get("args", {})) <= {line.split()[1].partition("=")[0] for line in lines}


def test_node_and_archive_of_the_composition_fit_each_other() -> None:
    for package in ("pynetdicom", "highdicom"):
        pytest.importorskip(package, reason="install '.[node]'")
    from edge_spine.node.config import load_config

    config = load_config(FOLDER / "node.toml")
    archive = json.loads((FOLDER / "archive.json").read_text(encoding="utf-8"))
    where = config.destination
    assert (where.ae_title, where.host, where.port) == (archive["DicomAet"], "archive", archive["DicomPort"])
    assert config.host == "0.0.0.0" and config.health_port == 11113
    assert archive["StorageDirectory"] == archive["IndexDirectory"] == "/var/lib/archive"
    assert config.spool == Path("/var/lib/edge-spine/spool")
