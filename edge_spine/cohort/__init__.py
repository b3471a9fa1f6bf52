"""Cohorts: thousands of scans on a process pool, a Ray or a Dask cluster, into Parquet files. See README.md here."""

from __future__ import annotations

from edge_spine.cohort.batch import SpineBatch
from edge_spine.cohort.shards import read_cohort

__all__ = ["SpineBatch", "read_cohort"]
