"""Thousands of scans into Parquet files, on a process pool, Ray or Dask; the door is `SpineBatch`. See README.md."""

from __future__ import annotations

from edge_spine.cohort.batch import SpineBatch
from edge_spine.cohort.shards import read_cohort

__all__ = ["SpineBatch", "read_cohort"]
