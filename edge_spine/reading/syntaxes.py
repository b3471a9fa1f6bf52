"""List the readable transfer syntaxes and the decoder of each."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from edge_spine.errors import Refusal

DEFLATED = str(DeflatedExplicitVRLittleEndian)
JPEG_LS = frozenset({JPEGLSLossless, JPEGLSNearLossless})
JPEG_2000 = frozenset({JPEG2000Lossless, JPEG2000})
# in the order of preference
UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
_ACCEPTED = "uncompressed (little or big endian), RLE Lossless, JPEG-LS, JPEG 2000 and JPEG Lossless are accepted"
# pydicom's names of its decoders, the preferred one first, and the modules that each needs
_PLUGINS = {
    RLELossless: ("pydicom",),
    **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), ("pyjpegls", "gdcm")),
    **dict.fromkeys((JPEG2000Lossless, JPEG2000), ("pylibjpeg",)),
    **dict.fromkeys((JPEGLosslessSV1, JPEGLossless), ("gdcm",)),
}
COMPRESSED = frozenset(_PLUGINS)
_MODULES = {"gdcm": ("gdcm",), "pyjpegls": ("jpeg_ls",), "pylibjpeg": ("pylibjpeg", "openjpeg"), "pydicom": ()}


def check_syntax(syntax: str) -> None:
    """Refuse a transfer syntax that cannot be read here as 'unsupported-syntax', and name a decoder that is missing."""
    if syntax in UNCOMPRESSED:
        return
    known = UID(syntax)
    name = known.name if known.is_transfer_syntax else "unknown or missing"
    if syntax not in COMPRESSED:
        raise Refusal("unsupported-syntax", f"transfer syntax {name}; {_ACCEPTED}")
    if plugin_for(syntax) is None:
        package = "pylibjpeg pylibjpeg-openjpeg" if syntax in JPEG_2000 else "'.[codecs]'"
        raise Refusal("unsupported-syntax", f"transfer syntax {name} needs a decoder: pip install {package}")


def readable_syntaxes() -> list[str]:
    """Return the transfer syntaxes that can be read here, uncompressed ones first."""
    return [*UNCOMPRESSED, *filter(plugin_for, _PLUGINS)]


@cache
def plugin_for(syntax: str) -> str | None:
    """Return the name of pydicom's decoder for a compressed syntax, None where none is installed.

    The modules are not imported here, but in the decoder process only.
    """
    return next((plugin for plugin in _PLUGINS[UID(syntax)] if all(map(find_spec, _MODULES[plugin]))), None)
