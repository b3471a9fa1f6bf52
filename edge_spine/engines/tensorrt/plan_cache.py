"""Plans on disk: built here, for this GPU, by this user, or not used at all.

A TensorRT plan is executable code in all but name. So each lies beside a sidecar that names everything it was built
for, and both are authenticated with a secret that only this user can read; nothing is handed to TensorRT before all
of it agrees. What does not agree is built again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_spine.errors import EngineUnavailable
from edge_spine.files import write_durably

_SECRET, _SECRET_BYTES = "secret", 32
_SIDECAR_LIMIT = 1 << 16
_SCHEMA = "edge-spine/plan/1"
_log = logging.getLogger(__name__)

Identity = Mapping[str, str]


class PlanCache:
    """A private folder of plans.

    Parameters
    ----------
    folder : path, optional
        Where it lies; the user's cache folder, or EDGE_SPINE_CACHE, where it is not given.

    Raises
    ------
    EngineUnavailable
        The folder cannot be made, or others than this user may write to it; or a package that it needs is missing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else folder
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EngineUnavailable(f"tensorrt: the cache folder cannot be made ({error.strerror})") from None
        problem = _not_private(self.folder)
        if problem:
            raise EngineUnavailable(f"tensorrt: the cache folder {self.folder} {problem}")
        self._secret = _secret(self.folder / _SECRET)

    def load_or_build(self, name: str, identity: Identity, build: Callable[[], bytes], *, fresh: bool = False) -> bytes:
        """Return the plan `name` for `identity`, from the folder or fresh.

        Where several processes ask at once, one builds and the others wait for its plan.

        Parameters
        ----------
        name : str
            What the plan is called on disk; it stays when the identity changes, so that an old plan is replaced.
        identity : mapping of str to str
            Everything that the plan depends on.
        build : callable
            Returns a plan; called at most once.
        fresh : bool
            Build even where there is a good plan.
        """
        plan = None if fresh else self.load(name, identity)[0]
        if plan is not None:
            return plan
        with _lock(self.folder / f"{name}.lock"):
            plan, why = (None, "it was asked for") if fresh else self.load(name, identity)
            if plan is not None:
                return plan
            _log.warning("tensorrt: building the plan %s, which takes minutes, once: %s", name, why)
            plan = build()
            self.store(name, identity, plan)
            return plan

    def load(self, name: str, identity: Identity) -> tuple[bytes | None, str]:
        """Return an authenticated plan for `identity` and "", or None and why there is none."""
        sidecar = self._sidecar(name)
        content = _read(sidecar, _SIDECAR_LIMIT)
        if content is None:
            return None, "there is none yet"
        try:
            fields = json.loads(content)
            stored, seal = dict(fields["identity"]), str(fields["seal"])
            plan_name, plan_seal = str(fields["plan"]), str(fields["plan_seal"])
            whole = fields["schema"] == _SCHEMA
        except (ValueError, KeyError, TypeError, RecursionError):
            return None, "its sidecar is damaged"
        if not whole or not _same(seal, self._seal(_unsealed(stored, plan_name, plan_seal))):
            return None, "its sidecar was not written by this user on this machine, or was changed since"
        changed = [key for key in sorted({*stored, *identity}) if stored.get(key) != identity.get(key)]
        if changed:
            words = [f"{key} was {stored.get(key, 'unknown')}, is {identity.get(key, 'unknown')}" for key in changed]
            return None, "; ".join(words)
        plan = _read(self.folder / plan_name) if Path(plan_name).name == plan_name else None
        if plan is None or not _same(plan_seal, self._seal(plan)):
            return None, "the plan is missing or was changed"
        return plan, ""

    def store(self, name: str, identity: Identity, plan: bytes) -> None:
        """Write a plan and then its sidecar, each whole or not at all; earlier plans of this name go."""
        plan_name = f"{name}.{hashlib.sha256(plan).hexdigest()[:16]}.plan"
        plan_seal = self._seal(plan)
        sealed = _unsealed(dict(identity), plan_name, plan_seal)
        sidecar = json.dumps({**json.loads(sealed), "seal": self._seal(sealed)}, indent=1, sort_keys=True)
        try:
            write_durably(self.folder / plan_name, plan)
            write_durably(self._sidecar(name), sidecar.encode("utf-8"))
            for old in self.folder.glob(f"{name}.*.plan"):
                if old.name != plan_name:
                    old.unlink()
        except OSError as error:
            # a full disk must not cost the scan: the plan works, it is only not kept
            _log.warning("tensorrt: the plan could not be kept in the cache (%s)", error.strerror)

    def private_bytes(self, name: str) -> bytes:
        """Return what `keep_private` kept under a name, or nothing where it is missing or was changed."""
        content = _read(self.folder / name) or b""
        size = hashlib.sha256().digest_size
        seal, kept = content[:size], content[size:]
        return kept if hmac.compare_digest(seal, self._digest(kept)) else b""

    def keep_private(self, name: str, content: bytes) -> None:
        """Keep bytes with this user's seal, such as a timing cache."""
        with suppress(OSError):
            write_durably(self.folder / name, self._digest(content) + content)

    def plans(self) -> list[str]:
        """Return the names of the plans that have a sidecar."""
        return sorted(path.name.removesuffix(".json") for path in self.folder.glob("*.json"))

    def _sidecar(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _digest(self, content: bytes) -> bytes:
        return hmac.new(self._secret, content, hashlib.sha256).digest()

    def _seal(self, content: bytes) -> str:
        return self._digest(content).hex()


def default_folder() -> Path:
    """Return the user's folder for plans: EDGE_SPINE_CACHE, or the operating system's place for caches."""
    given = os.environ.get("EDGE_SPINE_CACHE")
    if given:
        return Path(given)
    try:
        from platformdirs import user_cache_path
    except ImportError:
        raise EngineUnavailable("tensorrt: platformdirs is not installed; install edge-spine[tensorrt]") from None
    return user_cache_path("edge-spine", appauthor=False)


def _unsealed(identity: dict[str, Any], plan: str, plan_seal: str) -> bytes:
    fields = {"schema": _SCHEMA, "identity": identity, "plan": plan, "plan_seal": plan_seal}
    return json.dumps(fields, sort_keys=True).encode("utf-8")


def _same(seal: str, other: str) -> bool:
    # as bytes: the function takes no text beyond ASCII
    return hmac.compare_digest(seal.encode("utf-8", "replace"), other.encode("ascii"))


def _not_private(path: Path) -> str | None:
    """Say why others than this user could have written a file or folder; Windows keeps a profile private by itself."""
    if not hasattr(os, "getuid"):
        return None
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.getuid():
        return "belongs to another user"
    return "may be written by other users; take that right away" if found.st_mode & 0o022 else None


def _secret(path: Path) -> bytes:
    """Read this user's secret, or make it."""
    try:
        with _lock(path.with_name(f"{path.name}.lock")):
            if not path.exists():
                write_durably(path, secrets.token_bytes(_SECRET_BYTES))
        content = _read(path, _SECRET_BYTES)
        problem = _not_private(path)
    except OSError as error:
        raise EngineUnavailable(f"tensorrt: the cache folder cannot be used ({error.strerror})") from None
    if problem or content is None or len(content) != _SECRET_BYTES:
        raise EngineUnavailable(f"tensorrt: {path} {problem or 'is damaged'}; delete it, and plans are built again")
    return content


def _lock(path: Path) -> Any:
    try:
        from filelock import FileLock
    except ImportError:
        raise EngineUnavailable("tensorrt: filelock is not installed; install edge-spine[tensorrt]") from None
    return FileLock(path)


def _read(path: Path, limit: int | None = None) -> bytes | None:
    try:
        if _not_private(path) or (limit is not None and path.stat().st_size > limit):
            return None
        return path.read_bytes()
    except OSError:
        return None
