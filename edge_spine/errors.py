"""The errors of edge-spine: few, typed, each with one line that says what to do."""

from __future__ import annotations

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
)


class EdgeSpineError(Exception):
    """Base of every error that edge-spine raises on purpose."""


class Refusal(EdgeSpineError):
    """A scan that edge-spine will not process.

    Parameters
    ----------
    code : str
        One of `REFUSAL_CODES`: the same word in the JSON line, the log and the DICOM status comment.
    message : str
        One line: which file, what is wrong with it, and what would be accepted. Never patient data.

    Raises
    ------
    ValueError
        Where `code` is not one of `REFUSAL_CODES`.
    """

    def __init__(self, code: str, message: str) -> None:
        if code not in REFUSAL_CODES:
            raise ValueError(f"unknown refusal code {code!r}; known: {', '.join(REFUSAL_CODES)}")
        # Both arguments stay in args, so that a refusal survives the pickling between worker processes.
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        """Return the message alone: the code travels in its own field."""
        return self.message


class BundleError(EdgeSpineError):
    """A model bundle that is missing, damaged or not what it says."""


class EngineUnavailable(EdgeSpineError):
    """An engine that was asked for by name and cannot run here."""


class OutputError(EdgeSpineError):
    """A result that cannot be written in the form that was asked for; one line says why, without patient data."""


class UsageError(EdgeSpineError):
    """A wrong command or argument: exit status 2."""
