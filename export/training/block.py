"""Replace one block of a bundle's manifest: its bands, population or refinement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_spine.bundle.load import MANIFEST, Bundle, load_bundle, manifest_bytes, parse_manifest
from edge_spine.errors import UsageError
from edge_spine.files import write_files


def replace_block(bundle: Bundle, key: str, block: Mapping[str, Any] | None) -> None:
    """Write a bundle's manifest with another block.

    Only the manifest changes, so that one renaming exchanges the whole bundle.

    Parameters
    ----------
    bundle : Bundle
        From `load_bundle`.
    key : str
        Of the block in the manifest.
    block : Mapping, optional
        None takes it out.

    Raises
    ------
    BundleError
        The block is not valid.
    UsageError
        The bundle was replaced after it was loaded.
    OSError
        The manifest cannot be written.
    """
    fields = {name: value for name, value in bundle.manifest.items() if name != key}
    content = manifest_bytes(fields if block is None else {**fields, key: block})
    parse_manifest(content)
    if load_bundle(bundle.folder).sha256 != bundle.sha256:
        raise UsageError(f"{bundle.folder}: the bundle was replaced meanwhile; nothing was added to it")
    write_files(bundle.folder, {MANIFEST: content})
