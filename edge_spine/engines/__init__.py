"""Inference engines: one file each behind the contract of `base`; `select` chooses."""

from __future__ import annotations

from edge_spine.engines.base import Engine
from edge_spine.engines.select import ENGINES, PRECISIONS, engine_problems, open_engine

__all__ = ["ENGINES", "PRECISIONS", "Engine", "engine_problems", "open_engine"]
