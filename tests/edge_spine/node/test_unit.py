from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import edge_spine.node

ROOT = Path(__file__).resolve().parents[3]
GPU = Path(edge_spine.node.__file__).with_name("edge-spine-node-gpu.conf")
UNIT = Path(edge_spine.node.__file__).with_name("edge-spine-node.service")


def test_systemd_understands_the_unit() -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    checked = subprocess.run(["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True, check=False)
    complaints = [line for line in checked.stderr.splitlines() if UNIT.name in line]
    # The program is not where the unit has it on this machine; nothing else may be wrong.
    assert [line for line in complaints if "is not executable" not in line] == []


def test_the_unit_is_hardened() -> None:
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "DynamicUser=yes", "UMask=0077", "Restart=always"):
        assert line in lines
    assert any(line.startswith("MemoryMax=") for line in lines)


def test_systemd_understands_the_unit_with_a_gpu(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    unit = Path(shutil.copy(UNIT, tmp_path))
    (tmp_path / f"{UNIT.name}.d").mkdir()
    shutil.copy(GPU, tmp_path / f"{UNIT.name}.d" / "gpu.conf")
    checked = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    complaints = [line for line in checked.stderr.splitlines() if UNIT.name in line or "gpu.conf" in line]
    assert [line for line in complaints if "is not executable" not in line] == []


def test_the_drop_in_opens_devices_and_nothing_else() -> None:
    lines = [line for line in GPU.read_text(encoding="utf-8").splitlines() if "=" in line and not line.startswith("#")]
    assert "PrivateDevices=no" in lines and "DevicePolicy=closed" in lines
    assert "Environment=EDGE_SPINE_CACHE=/var/cache/edge-spine/plans" in lines and "CacheDirectory=edge-spine" in lines
    weakened = ("NoNewPrivileges", "ProtectSystem", "DynamicUser", "SystemCallFilter", "CapabilityBoundingSet", "User")
    assert [line for line in lines if line.startswith(weakened)] == []


def instructions() -> list[str]:
    text = (ROOT / "containers" / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_container_runs_as_a_user_without_rights_on_a_read_only_root() -> None:
    lines = instructions()
    kinds = [line.split()[0] for line in lines]
    assert set(kinds) <= {"ARG", "FROM", "RUN", "COPY", "ENV", "USER", "VOLUME", "EXPOSE", "ENTRYPOINT", "CMD"}
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users and users[-1].partition(":")[0] not in ("root", "0")
    assert kinds.index("USER") < kinds.index("ENTRYPOINT")
    assert not [line for line in lines if ":latest" in line]
    for line in lines:
        if "apt-get install" in line:
            assert "--no-install-recommends" in line and "rm -rf /var/lib/apt/lists" in line
    # what is written at run time lies in volumes, so that the root can be read-only
    volumes = " ".join(line for line in lines if line.startswith("VOLUME"))
    (cache,) = (
        word.partition("=")[2] for line in lines for word in line.split() if word.startswith("EDGE_SPINE_CACHE=")
    )
    assert any(cache.startswith(folder.strip('"[],')) for folder in volumes.split()[1:])


@pytest.mark.slow
def test_the_container_can_be_built() -> None:
    builder = shutil.which("podman") or shutil.which("docker")
    if not builder or subprocess.run([builder, "info"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no builder of containers works here")
    more = [
        "--build-arg",
        "BASE=docker.io/library/python:3.12-slim-bookworm",
        "--build-arg",
        "EXTRAS=cpu,node",
        "--build-arg",
        "MORE=",
    ]
    built = subprocess.run(
        [builder, "build", "-f", "containers/Containerfile", *more, "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode != 0 and any(
        word in built.stderr for word in ("i/o timeout", "no such host", "refused", "lookup")
    ):
        pytest.skip("no registry of images can be reached")
    assert built.returncode == 0, built.stderr
