"""Draw eleven or thirteen pairs of ribs, and transitional vertebrae between the lumbar spine and the sacrum.

A count from the last rib or from the sacrum is wrong by one on such people. 4 to 30 % of adults have a transitional
vertebra (Konin and Walz, AJNR 2010;31:1778).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from export.training.phantoms.person import Variant
from export.training.phantoms.shape import LAST_LUMBAR, Build, SpineShape
from export.training.phantoms.solids import SolidBuilder

# how much higher the iliac crests lie beside L5, mm
CREST_MM = {"usual": 0.0, "sacralised": 15.0, "lumbarised": -16.0}
# a variant's generator is another one than that of the rest of the same seed
_STREAM = 5
_FIRST_SACRAL = LAST_LUMBAR + 1


def draw_variant(seed: int, share: float) -> Variant:
    """Draw the variant of a seed: number of ribs and last vertebra are each unusual with probability `share`."""
    rng = np.random.default_rng([seed, _STREAM])
    unusual = rng.random(2) < share
    return Variant(
        ribs=int(rng.choice([11, 13])) if unusual[0] else 12,
        last=str(rng.choice(["sacralised", "lumbarised"])) if unusual[1] else "usual",
    )


def vary_discs(build: Build, variant: Variant) -> Build:
    """Return a build with the discs of a transitional vertebra; all bodies keep their heights."""
    disc = build.disc.copy()
    if variant.last == "sacralised":
        disc[LAST_LUMBAR] *= 0.3
    elif variant.last == "lumbarised":
        disc[_FIRST_SACRAL] = 0.8 * disc[LAST_LUMBAR]
    return replace(build, disc=disc, pitch=build.pitch + (disc - build.disc))


def add_wings(build: SolidBuilder, rng: np.random.Generator, shape: SpineShape) -> None:
    """Join the transverse processes of L5 to the wings of the sacrum."""
    width, high = shape.width[LAST_LUMBAR], shape.height[LAST_LUMBAR]
    between = 0.6 * shape.centre[LAST_LUMBAR] + 0.4 * shape.centre[_FIRST_SACRAL]
    for side in (-1, 1):
        radii = (width * rng.uniform(0.26, 0.36), 9.0, high * rng.uniform(0.45, 0.65))
        wing = between + np.array([side * width * 0.72, 0.4 * shape.depth[LAST_LUMBAR], 0.0])
        build.ellipsoid(wing, radii, float(rng.uniform(0.16, 0.3)), shape.axes[LAST_LUMBAR])
