"""Inference engines, one file each, with one interface; its door is `open_engine`."""

from edge_spine.engines.base import Engine, EngineName
from edge_spine.engines.select import ENGINES, PRECISIONS, engine_problems, open_engine, runs_on_gpu

__all__ = ["ENGINES", "PRECISIONS", "Engine", "EngineName", "engine_problems", "open_engine", "runs_on_gpu"]
