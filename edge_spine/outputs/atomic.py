"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping
from pathlib import Path


def write_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files into a folder: all beside their places first, then each renamed into its place.

    A process killed at any moment leaves whole files, of which some may be the ones from before, and
    perhaps hidden ``.NAME.*.partial`` files. An error leaves everything as it was.

    Parameters
    ----------
    folder : Path
        Made where it does not exist.
    contents : mapping of str to bytes
        File names, without folders, and what goes into the files. Files that exist are replaced.

    Returns
    -------
    list of Path
        The written files, in the order of `contents`.

    Raises
    ------
    OSError
        The folder or a file in it cannot be written.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(4)
    partial = {name: folder / f".{name}.{token}.partial" for name in contents}
    try:
        for name, content in contents.items():
            partial[name].write_bytes(content)
        for name, path in partial.items():
            path.replace(folder / name)
    except BaseException:
        for path in partial.values():
            path.unlink(missing_ok=True)
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    return [folder / name for name in contents]
