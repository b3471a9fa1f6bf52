"""Errors that edge-spine raises on purpose, and the codes of refused scans."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

REFUSAL_CODES = (
    "unreadable",
    "unsupported-syntax",
    "not-dxa",
    "not-whole-body",
    "soft-tissue-image",
    "no-spacing",
    "too-small",
    "too-large",
    "no-spine",
    "implausible-curves",
    "implausible-geometry",
)


class EdgeSpineError(Exception):
    """Base of every error that edge-spine raises on purpose."""


class Refusal(EdgeSpineError):
    """A scan that edge-spine will not process.

    Parameters
    ----------
    code : str
        One of `REFUSAL_CODES`, as in the JSON line, the log and the DICOM status comment.
    reason : str
        What was found and what would be accepted, in one line. Never patient data.
    source : str, optional
        Name of the file; `named_refusals` adds it.

    Raises
    ------
    ValueError
        Where `code` is not one of `REFUSAL_CODES`.
    """

    def __init__(self, code: str, reason: str, source: str | None = None) -> None:
        if code not in REFUSAL_CODES:
            raise ValueError(f"unknown refusal code {code!r}; known: {', '.join(REFUSAL_CODES)}")
        # worker processes pickle errors by their `args`
        super().__init__(code, reason, source)
        self.code = code
        self.reason = reason
        self.source = source

    @property
    def message(self) -> str:
        """The reason after the name of the file, without the code."""
        return self.reason if self.source is None else f"{self.source}: {self.reason}"

    def __str__(self) -> str:
        """Return the message."""
        return self.message


class InputUnavailable(EdgeSpineError):
    """A file that cannot be read now: missing, busy, without rights, or on a share that is away.

    It says nothing of the content, so that trying again later can succeed.
    """


class BundleError(EdgeSpineError):
    """A model bundle that is missing, damaged or inconsistent."""


class EngineUnavailable(EdgeSpineError):
    """An engine that was named and cannot run on this machine."""


class GpuMemoryShort(EngineUnavailable):
    """An engine for whose plan or network the GPU has too little free memory; the message names the code."""

    code = "gpu-memory"


class EngineLost(EngineUnavailable):
    """An engine that failed while it ran, as after an error of a GPU, and works again only in a new process.

    It says nothing about the scan, which should be processed again there.
    """


class OutputError(EdgeSpineError):
    """A result that cannot be written in the format asked for; the message holds no patient data."""


class UsageError(EdgeSpineError):
    """A wrong command or argument; exit status 2."""


@contextmanager
def named_refusals(source: str) -> Iterator[None]:
    """Add the name of a file to a refusal that passes through and has none."""
    try:
        yield
    except Refusal as refusal:
        if refusal.source is None:
            refusal.source, refusal.args = source, (refusal.code, refusal.reason, source)
        raise


def reason_of(error: OSError) -> str:
    """Return the system's words for an error, or the name of its type where it has none."""
    return error.strerror or type(error).__name__
