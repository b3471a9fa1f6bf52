"""Power in lines of tegrastats, as NVIDIA's documentation and forum show them."""

from __future__ import annotations

import pytest
from device import tegra_power_mw

HEAD = "RAM 3162/30697MB (lfb 6x4MB) SWAP 0/15348MB (cached 0MB) CPU [1%@729,0%@729] EMC_FREQ 0% GR3D_FREQ 0% "
TEMPERATURES = "cpu@44.5C tboard@35C soc2@40.5C "


@pytest.mark.parametrize(
    ("rails", "power"),
    [
        ("VDD_IN 4940mW/4940mW VDD_CPU_GPU_CV 803mW/803mW VDD_SOC 1405mW/1405mW", 4940),
        ("VDD_GPU_SOC 3206mW/3206mW VDD_CPU_CV 401mW/401mW VIN_SYS_5V0 4040mW/4040mW", 3206 + 401 + 4040),
        ("GPU 0/0 CPU 310/310 SOC 931/931 CV 0/0 VDDRQ 155/155 SYS5V 1470/1470", 310 + 931 + 155 + 1470),
        ("POM_5V_IN 2532/2532 POM_5V_GPU 0/0 POM_5V_CPU 411/411", 2532),
        ("", None),
    ],
)
def test_the_module_s_input_or_the_sum_of_its_rails(rails: str, power: int | None) -> None:
    assert tegra_power_mw(HEAD + TEMPERATURES + rails) == power
