"""Options that several programs share."""

from __future__ import annotations

import argparse
from pathlib import Path


def report_file(text: str) -> Path:
    """Return the path of a report to write; for `type` of an argparse option, so that a long run does not end in vain.

    Raises
    ------
    ArgumentTypeError
        Its folder does not exist, or it is a folder itself.
    """
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: a file in a folder that exists is expected")
    return path
