"""Cache of TensorRT plans that were built on this machine by this user.

A plan can run any code, so that only plans that nobody else could have written are loaded: the folder and each file
must belong to this user and be writable by no other. A sidecar names everything that the plan was built for and its
SHA-256; a plan that differs is built again. There is no signature: its secret would lie in the same folder, readable by
every process that could write a plan.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_spine.engines.base import TENSORRT_EXTRAS, importing
from edge_spine.errors import EngineUnavailable, reason_of
from edge_spine.files import write_durably

_SIDECAR_LIMIT = 1 << 16
_SCHEMA = "edge-spine/plan/2"
_log = logging.getLogger(__name__)

Identity = Mapping[str, str]


class PlanCache:
    """Keep plans in a folder that no other user can write to, by default `default_folder`.

    Raises
    ------
    EngineUnavailable
        The folder cannot be made, other users may write to it, or a package is missing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else folder
        with importing("tensorrt", "filelock", *TENSORRT_EXTRAS):
            from filelock import FileLock
        self._lock = FileLock
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EngineUnavailable(f"tensorrt: the cache folder cannot be made ({reason_of(error)})") from None
        problem = _not_private(self.folder)
        if problem:
            raise EngineUnavailable(f"tensorrt: the cache folder {self.folder} {problem}")

    def load_or_build(self, name: str, identity: Identity, build: Callable[[], bytes], *, fresh: bool = False) -> bytes:
        """Return the plan `name` for `identity`, from the folder or newly built.

        Of several processes, one builds and the others wait for its plan. `name` is that on disk, and the same for
        every identity, so that an old plan is replaced. `identity` is everything that the plan depends on. With
        `fresh` a new plan is built in any case.
        """
        plan = None if fresh else self.load(name, identity)[0]
        if plan is not None:
            return plan
        with self._lock(self.folder / f"{name}.lock"):
            plan, why = (None, "it was asked for") if fresh else self.load(name, identity)
            if plan is not None:
                return plan
            _log.warning("tensorrt: building the plan %s, which takes minutes, once: %s", name, why)
            plan = build()
            self._store(name, identity, plan)
            return plan

    def load(self, name: str, identity: Identity) -> tuple[bytes | None, str]:
        """Return a checked plan for `identity` and "", or None and why there is none."""
        content = _read(self.folder / f"{name}.json", _SIDECAR_LIMIT)
        if content is None:
            return None, "there is none yet"
        try:
            fields = json.loads(content)
            stored, plan_name, sha256 = dict(fields["identity"]), str(fields["plan"]), str(fields["sha256"])
            known = fields["schema"] == _SCHEMA
        except (ValueError, KeyError, TypeError, RecursionError):
            known = False
        if not known:
            return None, "its sidecar is damaged or of another version"
        changed = [key for key in sorted({*stored, *identity}) if stored.get(key) != identity.get(key)]
        if changed:
            words = [f"{key} was {stored.get(key, 'unknown')}, is {identity.get(key, 'unknown')}" for key in changed]
            return None, "; ".join(words)
        plan = _read(self.folder / plan_name) if Path(plan_name).name == plan_name else None
        if plan is None or hashlib.sha256(plan).hexdigest() != sha256:
            return None, "the plan is missing or was changed"
        return plan, ""

    def _store(self, name: str, identity: Identity, plan: bytes) -> None:
        """Write a plan and then its sidecar, each whole or not at all; delete earlier plans of this name."""
        sha256 = hashlib.sha256(plan).hexdigest()
        plan_name = f"{name}.{sha256[:16]}.plan"
        fields = {"schema": _SCHEMA, "identity": dict(identity), "plan": plan_name, "sha256": sha256}
        try:
            write_durably(self.folder / plan_name, plan)
            sidecar = json.dumps(fields, indent=1, sort_keys=True).encode("utf-8")
            write_durably(self.folder / f"{name}.json", sidecar)
            for old in (*self.folder.glob(f"{name}.*.plan"), *self.folder.glob(f"{name}.*.verdict")):
                if old.stem != Path(plan_name).stem:
                    old.unlink()
        except OSError as error:
            # a full disk must not cost the scan: the plan can be used without being kept
            _log.warning("tensorrt: the plan could not be kept in the cache (%s)", reason_of(error))

    def verdict(self, name: str, plan: bytes) -> dict[str, Any] | None:
        """Return what `keep_verdict` kept for this very plan, or None."""
        try:
            fields = json.loads(self.private_bytes(self._verdict(name, plan)))
            return dict(fields["verdict"]) if fields["sha256"] == hashlib.sha256(plan).hexdigest() else None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def keep_verdict(self, name: str, plan: bytes, verdict: Mapping[str, Any]) -> None:
        """Keep the judgement on a plan beside it."""
        fields = {"sha256": hashlib.sha256(plan).hexdigest(), "verdict": dict(verdict)}
        self.keep_private(self._verdict(name, plan), json.dumps(fields, sort_keys=True).encode("utf-8"))

    def block(self, name: str) -> int:
        """Return the block size that `keep_block` kept, or 1."""
        kept = self.private_bytes(f"{name}.block")
        return int(kept) if kept.isdigit() and int(kept) > 1 else 1

    def keep_block(self, name: str, block: int) -> None:
        """Keep the block size that was the fastest for the plans of a name."""
        self.keep_private(f"{name}.block", str(block).encode("ascii"))

    def private_bytes(self, name: str) -> bytes:
        """Return what `keep_private` kept under a name, or nothing where it is missing or was changed."""
        content = _read(self.folder / name) or b""
        size = hashlib.sha256().digest_size
        digest, kept = content[:size], content[size:]
        return kept if digest == hashlib.sha256(kept).digest() else b""

    def keep_private(self, name: str, content: bytes) -> None:
        """Keep bytes, such as a timing cache, with their hash."""
        with suppress(OSError):
            write_durably(self.folder / name, hashlib.sha256(content).digest() + content)

    def plans(self) -> list[str]:
        """Return the names of the plans that have a sidecar."""
        return sorted(path.name.removesuffix(".json") for path in self.folder.glob("*.json"))

    def _verdict(self, name: str, plan: bytes) -> str:
        return f"{name}.{hashlib.sha256(plan).hexdigest()[:16]}.verdict"


def default_folder() -> Path:
    """Return the user's folder for plans: EDGE_SPINE_CACHE or the system's cache folder."""
    given = os.environ.get("EDGE_SPINE_CACHE")
    if given:
        return Path(given)
    with importing("tensorrt", "platformdirs", *TENSORRT_EXTRAS):
        from platformdirs import user_cache_path
    return user_cache_path("edge-spine", appauthor=False)


def _not_private(path: Path) -> str | None:
    """Return why other users could have written a file or folder, or None; not asked on Windows."""
    if not hasattr(os, "getuid"):
        return None
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.getuid():
        return "belongs to another user"
    return "may be written by other users; remove their write permission" if found.st_mode & 0o022 else None


def _read(path: Path, limit: int | None = None) -> bytes | None:
    try:
        if _not_private(path) or (limit is not None and path.stat().st_size > limit):
            return None
        return path.read_bytes()
    except OSError:
        return None
