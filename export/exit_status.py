"""Exit statuses of the programs in export."""

from __future__ import annotations

import sys

from edge_spine.errors import UsageError


def refused(program: str, error: Exception) -> int:
    """Print an error on stderr, and return the exit status: 2 for wrong usage, 1 for any other error."""
    print(f"{program}: {error}", file=sys.stderr)
    return 2 if isinstance(error, UsageError) else 1
