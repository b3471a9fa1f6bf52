"""What every refusal of a file has in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_spine.errors import Refusal
from edge_spine.reading import read_scan
from edge_spine.reading.read import scan_from_bytes


def refused(data: bytes | Path, code: str, *, pixel_spacing: tuple[float, float] | None = None) -> str:
    """Read what must be refused with `code`, and return the message after checking its form."""
    with pytest.raises(Refusal) as caught:
        if isinstance(data, Path):
            read_scan(data, pixel_spacing=pixel_spacing)
        else:
            scan_from_bytes(data, "file.dcm", pixel_spacing=pixel_spacing)
    assert caught.value.code == code, caught.value.message
    message = str(caught.value)
    name = data.name if isinstance(data, Path) else "file.dcm"
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    assert "SECRET" not in message
    if isinstance(data, Path):
        assert str(data.parent) not in message
    return message
