"""A file that another program holds open on Windows, where it cannot be renamed, replaced or deleted then."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def held_open(held: Path) -> Iterator[None]:
    """Hold a file open on Windows; elsewhere let changes of it fail as they do there."""
    if os.name == "nt":
        with held.open("rb"):
            yield
        return
    with pytest.MonkeyPatch.context() as patched:
        for name in ("replace", "rename", "unlink"):
            patched.setattr(Path, name, _failing(getattr(Path, name), held))
        yield


def _failing(method: Callable[..., Any], held: Path) -> Callable[..., Any]:
    def changed(path: Path, *arguments: Any, **options: Any) -> Any:
        if held in (path, *arguments):
            raise PermissionError(13, "Permission denied", str(path), None, *map(str, arguments))
        return method(path, *arguments, **options)

    return changed
