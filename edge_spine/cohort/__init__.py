"""Process thousands of scans into Parquet files on a process pool, Ray or Dask. See README.md.

The door is `SpineBatch` for one batch, `run.run_cohort` for a cohort, and `read_cohort` for its results.
"""

from edge_spine.cohort.batch import SpineBatch
from edge_spine.cohort.shards import read_cohort

__all__ = ["SpineBatch", "read_cohort"]
