"""FAKE results for tests of what is written and drawn: invented curves on an invented image, no model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_spine.bundle.bands import Bands
from edge_spine.measure import levels_of, measure
from edge_spine.preprocessing.body import Body, find_body
from edge_spine.preprocessing.prepare import Prepared
from edge_spine.quality import Quality
from edge_spine.reconstruct import Curves, reconstruct
from edge_spine.result import STAGES, SpineResult
from edge_spine.scan import Turn


def fake_curves(
    *, lateral_mm: float = 14.0, top_mm: float = 345.0, middle_mm: float = 330.0, waves: float = 1.25
) -> Curves:
    """Sine-shaped curves, 209 rows of 2.2 mm."""
    t = np.linspace(0, 1, 209)
    z = -(top_mm + 2.2 * np.arange(209))
    x = middle_mm - lateral_mm * np.sin(2 * np.pi * waves * t) * np.sin(np.pi * t) ** 0.5
    y = 22 * np.sin(2 * np.pi * (t - 0.08) * 1.02)
    y -= y.mean()
    half_width, half_depth = 13 + 10 * t, 10 + 7 * t
    return Curves(
        z=z,
        coronal=np.column_stack([x - half_width, x, x + half_width]),
        sagittal=np.column_stack([y - half_depth, y, y + half_depth]),
    )


def fake_pixels(rows: int = 791, columns: int = 272) -> NDArray[np.float32]:
    """An invented grey body: an ellipse with a brighter column."""
    row, column = np.mgrid[0:rows, 0:columns].astype(np.float32)
    across = (column - columns / 2) / (columns * 0.42)
    along = (row - rows / 2) / (rows * 0.48)
    body = np.clip(1.2 - across**2 - along**2, 0, 0.5) * 180
    column_of_bone = np.exp(-(((column - columns / 2) / 8) ** 2)) * (body > 0) * 90
    return np.asarray(body + column_of_bone, np.float32)


def phantom_pixels() -> NDArray[np.float32]:
    """An invented grey body that passes for a bone image: its head is bright."""
    pixels = fake_pixels()
    row, column = np.mgrid[0 : pixels.shape[0], 0 : pixels.shape[1]]
    pixels[(row - 55) ** 2 + (column - 136) ** 2 < 32**2] = 250
    return pixels


def fake_bands(*, coronal_mm: float = 1.2, sagittal_mm: float = 3.5) -> Bands:
    """Invented bands, wider towards the ends."""
    shape = 1 + 0.8 * np.linspace(-1, 1, 209) ** 2
    return Bands(coronal=coronal_mm * shape, sagittal=sagittal_mm * shape)


def no_body() -> Body:
    """A body for what shows none."""
    return Body(np.zeros((1, 1), np.float32), np.zeros((1, 1), bool), 0.0, 1.0, 0.0, 1.0, 0.0, ())


def fake_result(**changes: Any) -> SpineResult:
    """A FAKE result with real reconstruction and measurements of fake curves."""
    curves = changes.pop("curves", None) or fake_curves()
    spine = reconstruct(curves)
    pixels = changes.pop("pixels", None) if "pixels" in changes else fake_pixels()
    body = no_body() if pixels is None else find_body(pixels)
    spacing = changes.pop("pixel_spacing_mm", (2.427, 2.419))
    fields: dict[str, Any] = {
        "scan": SimpleNamespace(
            pixels=pixels,
            pixel_spacing_mm=spacing,
            source=changes.pop("source", "FAKE.dcm"),
            sop_instance_uid="1.2.3",
            flags=(),
            header=changes.pop("header", None),
            turn=changes.pop("turn", Turn()),
            path=changes.pop("path", "FAKE/FAKE.dcm"),
            sha256="f" * 64,
        ),
        "prepared": Prepared(2.2, (135.2, 40.75), spacing, np.zeros((1, 3, 224, 224), np.float32), (), 1.0, body),
        "curves": curves,
        "spine": spine,
        "levels": levels_of(spine),
        "measurements": measure(spine),
        "quality": Quality(accepted=True, flags=()),
        "model": {
            "name": "FAKE",
            "version": "0",
            "sha256": "0" * 64,
            "engine": "onnx-cpu",
            "precision": "int8",
        },
        "timing_ms": dict.fromkeys(STAGES, 0.0),
    }
    return SpineResult(**{**fields, **changes})
