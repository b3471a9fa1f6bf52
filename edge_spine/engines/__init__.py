"""Inference engines behind the contract of `base`, one file each; the door is `open_engine`."""

from __future__ import annotations

from edge_spine.engines.base import Engine
from edge_spine.engines.select import ENGINES, PRECISIONS, engine_problems, open_engine

__all__ = ["ENGINES", "PRECISIONS", "Engine", "engine_problems", "open_engine"]
