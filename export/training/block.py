"""Replace one block of a bundle's manifest: its bands or its population."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_spine.bundle.load import MANIFEST, Bundle, load_bundle, manifest_bytes, parse_manifest
from edge_spine.errors import UsageError
from edge_spine.files import write_files


def replace_block(bundle: Bundle, key: str, block: Mapping[str, Any]) -> None:
    """Write a bundle's manifest with another block.

    Only the manifest changes, so that one renaming exchanges the whole bundle.

    Parameters
    ----------
    bundle : Bundle
        From `load_bundle`.
    key : str
        Of the block in the manifest.
    block : Mapping
        In place of the one that is there.

    Raises
    ------
    BundleError
        The block is not valid.
    UsageError
        The bundle was replaced after it was loaded.
    OSError
        The manifest cannot be written.
    """
    content = manifest_bytes({**bundle.manifest, key: block})
    parse_manifest(content)
    if load_bundle(bundle.folder).sha256 != bundle.sha256:
        raise UsageError(f"{bundle.folder}: the bundle was replaced meanwhile; nothing was added to it")
    write_files(bundle.folder, {MANIFEST: content})
