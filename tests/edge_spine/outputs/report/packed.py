"""Arrays of the viewer, read back."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np


def unpacked(packed: str, kind: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(packed), kind).reshape(-1, 3)
