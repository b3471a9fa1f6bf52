from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import edge_spine.node

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
