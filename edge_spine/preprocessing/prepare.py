"""Prepare a scan for the network: find the body and the spine, normalise and resample.

Intensities and the canonical size follow the published preprocessing (Bourigault et al., MICCAI 2024): clamp below
the 9.5th percentile of the body, stretch, compress with a sigmoid, resample crown to toe to 832 rows. The published
crop is placed by an annotated curve; here the locator places it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_spine.errors import Refusal
from edge_spine.network import CANONICAL_ROWS, CROP_SIZE, CropPlacement
from edge_spine.preprocessing.body import Body, clipped_share, find_body, has_head_and_shoulders, skull_to_abdomen
from edge_spine.preprocessing.crop import as_tensor, resample
from edge_spine.preprocessing.intensity import normalise
from edge_spine.preprocessing.locator import Landmarks, Localiser
from edge_spine.scan import Scan

# share of the crown-to-toe extent, mean of adults: T1 top to L5 bottom, and crown to L5 bottom
_TRUNK_SHARE, _CROWN_TO_L5_SHARE = 0.2510, 0.4105
_SOFT_TISSUE_RATIO = 1.3
# bone images as stored have at most a fifteenth of the body at their largest value
_MAX_CLIPPED_SHARE = 0.25
_MIN_CONFIDENCE = 0.35
# T1 top to L5 bottom of adults, mm, and crown to T1 top as a share of it
_TRUNK_MM, _HEAD_TO_TRUNK = (300.0, 620.0), (0.35, 1.0)
# tables of scanners are at most about 700 mm wide, necks 150 mm; detached parts of one body are small
_MAX_WIDTH_MM, _MAX_NECK_MM, _MAX_SECOND_SHARE = 800.0, 220.0, 0.4
# largest distance of the crop's centre from the middle between T1 and L5, share of the trunk
_MAX_OFF_CENTRE = 0.15


@dataclass(frozen=True, eq=False)
class Prepared(CropPlacement):
    """The network's input, its place in the scan, and the body that was found.

    Attributes
    ----------
    tensor : (1, 3, 224, 224) float32 array
        The crop in [0, 1], three equal channels.
    flags : tuple of str
        Any of "inverted", "feet-outside", "head-outside", "extent-estimated".
    localiser_confidence : float
        Of the localiser, 0 to 1.
    body : Body
        The body in the scan.
    """

    tensor: NDArray[np.float32]
    flags: tuple[str, ...]
    localiser_confidence: float
    body: Body = field(repr=False)


def prepare(scan: Scan, localiser: Localiser) -> Prepared:
    """Turn a scan into the network's input, or refuse it: "soft-tissue-image", "not-whole-body" or "no-spine"."""
    body = find_body(scan.pixels)
    _check_body(scan, body)
    shown = normalise(body.pixels, body.mask, body.greys)
    found = localiser(shown, scan.pixel_spacing_mm)
    _check_landmarks(scan, body, found)
    extent_mm, flags = _extent(body, found, scan.pixel_spacing_mm)
    place = CropPlacement.centred(found.centre_px, extent_mm / CANONICAL_ROWS, scan.pixel_spacing_mm)
    crop = resample(shown, scan.pixel_spacing_mm, place.model_pixel_mm, place.crop_origin_px, CROP_SIZE)
    return Prepared(
        **vars(place), tensor=as_tensor(crop), flags=flags, localiser_confidence=found.confidence, body=body
    )


def _check_body(scan: Scan, body: Body) -> None:
    """Refuse an image whose outline or brightness is not that of one upright person."""
    columns = np.flatnonzero(body.mask.any(axis=0))
    width = float(columns[-1] - columns[0] + 1) * scan.pixel_spacing_mm[1]
    if width > _MAX_WIDTH_MM:
        raise _not_whole_body(f"the object in it is {width:.0f} mm wide, a body at most {_MAX_WIDTH_MM:.0f} mm")
    if body.second_share > _MAX_SECOND_SHARE:
        raise _not_whole_body(f"a second object has {100 * body.second_share:.0f} % of the area of the largest")
    if "head-outside" in body.flags:
        # two rows below the edge, beyond the artefacts of cubic or lossy exports
        top = float(body.mask[int(body.crown + 0.5) + 2].sum()) * scan.pixel_spacing_mm[1]
        if top > _MAX_NECK_MM:
            raise _not_whole_body(
                f"at its upper edge the body is {top:.0f} mm wide, and a head or neck at most {_MAX_NECK_MM:.0f}"
            )
    elif (ratio := skull_to_abdomen(body)) < _SOFT_TISSUE_RATIO:
        if not has_head_and_shoulders(body):
            raise _not_whole_body("its outline has no head, neck and shoulders at the top")
        if (clipped := clipped_share(body)) > _MAX_CLIPPED_SHARE:
            raise Refusal(
                "no-spine",
                f"{100 * clipped:.0f} % of the body has the largest grey value, so that bone cannot be told from soft "
                "tissue; give the bone image as the scanner stores it, without the window of a display",
            )
        raise Refusal(
            "soft-tissue-image",
            f"the skull is only {ratio:.2f} times as bright as the abdomen (a bone image: over "
            f"{_SOFT_TISSUE_RATIO:g}), as on a scan's soft-tissue image, which hardly shows the spine; "
            "give its bone image",
        )


def _check_landmarks(scan: Scan, body: Body, found: Landmarks) -> None:
    """Refuse landmarks of low confidence, or outside the proportions of adults."""
    if found.confidence < _MIN_CONFIDENCE:
        raise Refusal(
            "no-spine",
            f"no spine was found (confidence {found.confidence:.2f}, expected {_MIN_CONFIDENCE:g} "
            "or more); give a whole-body, antero-posterior DXA bone image",
        )
    length = found.trunk_mm(scan.pixel_spacing_mm)
    if not _TRUNK_MM[0] < length < _TRUNK_MM[1]:
        raise _not_whole_body(
            f"T1 to L5 would measure {length:.0f} mm, and an adult's {_TRUNK_MM[0]:.0f} to {_TRUNK_MM[1]:.0f} "
            "(is the pixel spacing right?)",
        )
    head = (found.t1_top_px[0] - body.crown) * scan.pixel_spacing_mm[0] / length
    if "head-outside" not in body.flags and not _HEAD_TO_TRUNK[0] < head < _HEAD_TO_TRUNK[1]:
        raise _not_whole_body(
            f"crown to T1 would be {head:.2f} times the length from T1 to L5, in adults it is {_HEAD_TO_TRUNK[0]:g} to "
            f"{_HEAD_TO_TRUNK[1]:g} times",
        )
    middle = [(t1 + l5) / 2 for t1, l5 in zip(found.t1_top_px, found.l5_bottom_px, strict=True)]
    off_mm = [(c - m) * mm for c, m, mm in zip(found.centre_px, middle, scan.pixel_spacing_mm, strict=True)]
    off = math.hypot(*off_mm)
    if off > _MAX_OFF_CENTRE * length:
        raise Refusal(
            "no-spine",
            f"no spine was found (its centre would lie {off:.0f} mm from the middle of T1 and L5, "
            f"expected at most {_MAX_OFF_CENTRE * length:.0f}); give a whole-body, antero-posterior DXA bone image",
        )


def _not_whole_body(found: str) -> Refusal:
    return Refusal(
        "not-whole-body", f"this is no whole body ({found}); give the DXA bone image of one whole person, head up"
    )


def _extent(body: Body, found: Landmarks, spacing_mm: tuple[float, float]) -> tuple[float, tuple[str, ...]]:
    """Return the crown-to-toe extent, mm: measured where the whole body is visible, else estimated from the trunk."""
    measured = (body.toe - body.crown) * spacing_mm[0]
    if "head-outside" in body.flags:
        estimate = found.trunk_mm(spacing_mm) / _TRUNK_SHARE
    else:
        estimate = (found.l5_bottom_px[0] - body.crown) * spacing_mm[0] / _CROWN_TO_L5_SHARE
    whole = "head-outside" not in body.flags and "feet-outside" not in body.flags
    if whole and 0.88 < measured / max(estimate, 1.0) < 1.14:
        return measured, body.flags
    return float(estimate), (*body.flags, "extent-estimated")
