"""Simulate the scanner: position of the person in the image, and display of the image.

`IDXA` produces images like a GE Lunar iDXA (grey levels measured on a real bone image: abdomen 82-92, thigh 96, arm
71, lung with ribs 105, thoracic spine 195, skull 218, femoral cortex saturated at 252, background exactly 0, steps of
two, adjacent-pixel noise about 2.7). `draw_scanner` varies it, and draws other makes: a windowed display on
an anisotropic raster as Hologic's, 12 and 16 bit, inverted, with lines of regions of interest, with motion artefacts,
with feet or an arm outside the field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from export.training.phantoms.person import Person
from export.training.phantoms.shape import FIRST_THORACIC, LAST_LUMBAR, SpineShape

Image = NDArray[np.float32]
Shown = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Scanner:
    """Make of scanner and circumstances of one scan.

    Attributes
    ----------
    shape : (rows, columns)
        Size of its whole-body image.
    field_mm : (height, width)
        Size of the scanned field, mm.
    bits, step : int
        Bits of the display, and step of its grey levels.
    window : (low, high), optional
        Levels (of the iDXA's display) shown as black and white.
    gamma : float
        Gamma of the display.
    blur_px : float
        Spread of the beam.
    inverted : bool
        Bone is dark.
    regions : bool
        Lines of regions of interest are burned in.
    moved : int
        Number of movements of the person.
    cut_feet, cut_side_mm : float
        End of the scan above the soles, as a fraction of the height, and lateral offset.
    """

    shape: tuple[int, int] = (791, 272)
    field_mm: tuple[float, float] = (1920.0, 658.0)
    bits: int = 8
    step: int = 2
    window: tuple[float, float] | None = None
    gamma: float = 1.0
    blur_px: float = 0.65
    inverted: bool = False
    regions: bool = False
    moved: int = 0
    cut_feet: float = 0.0
    cut_side_mm: float = 0.0

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Pixel pitch, row and column."""
        return self.field_mm[0] / self.shape[0], self.field_mm[1] / self.shape[1]


IDXA = Scanner()


@dataclass(frozen=True)
class Framing:
    """Position of the body in the image; `top_left_mm` is (z, x) of the centre of the top-left pixel."""

    shape: tuple[int, int]
    pixel_mm: tuple[float, float]
    top_left_mm: tuple[float, float]

    def grid(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return z of the rows (rows, 1) and x of the columns (1, columns), mm."""
        z = self.top_left_mm[0] - np.arange(self.shape[0]) * self.pixel_mm[0]
        x = self.top_left_mm[1] + np.arange(self.shape[1]) * self.pixel_mm[1]
        return z[:, None], x[None, :]


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """Draw make and circumstances of a scan: two thirds iDXA, one third windowed displays."""
    varied: dict[str, Any] = {
        "blur_px": float(rng.uniform(0.45, 1.25)),
        "inverted": bool(rng.random() < 0.06),
        "regions": bool(rng.random() < 0.12),
        "moved": int(rng.integers(1, 4)) if rng.random() < 0.08 else 0,
        "cut_feet": float(rng.uniform(0.02, 0.3)) if rng.random() < 0.06 else 0.0,
        "cut_side_mm": float(rng.choice([-1, 1]) * rng.uniform(40, 110)) if rng.random() < 0.06 else 0.0,
    }
    if rng.random() < 0.66:
        bits = int(rng.choice([8, 8, 8, 12]))
        return Scanner(bits=bits, step=2 if bits == 8 else 1, gamma=float(rng.uniform(0.92, 1.08)), **varied)
    pitch = (float(rng.uniform(2.0, 6.5)), float(rng.uniform(1.6, 2.6)))
    field = (1955.0, 660.0)
    return Scanner(
        shape=(round(field[0] / pitch[0]), round(field[1] / pitch[1])),
        field_mm=field,
        bits=int(rng.choice([8, 8, 12, 16])),
        step=1,
        window=(float(rng.uniform(0, 42)), float(rng.uniform(190, 290))),
        gamma=float(rng.uniform(0.75, 1.35)),
        **varied,
    )


def draw_framing(rng: np.random.Generator, person: Person, scanner: Scanner) -> Framing:
    """Place a person on the table, roughly centred, head near the top."""
    above = max(6.0, rng.normal((scanner.field_mm[0] - person.extent_mm) / 2, 18))
    left = -scanner.field_mm[1] / 2 + rng.normal(0, 9) + scanner.cut_side_mm
    rows, columns = scanner.shape
    if scanner.cut_feet:
        rows = int((above + person.extent_mm * (1 - scanner.cut_feet)) / scanner.pixel_mm[0])
    return Framing((rows, columns), scanner.pixel_mm, (person.crown_z + above, left))


def scanner_images(
    rng: np.random.Generator,
    scanner: Scanner,
    framing: Framing,
    spine: SpineShape,
    bone: Image,
    tissue: Image,
    air: Image,
) -> tuple[Shown, Shown]:
    """Form the bone and the soft-tissue image as the scanner displays them.

    Parameters
    ----------
    rng : numpy.random.Generator
        Generator of noise and texture.
    scanner, framing, spine : Scanner, Framing, SpineShape
        Scanner, image geometry, and the spine for regions of interest.
    bone, tissue, air : (rows, columns) arrays
        Areal density of bone (g/cm2), thickness of soft tissue and of the air in it (mm).
    """
    shape, pixel_mm = bone.shape, framing.pixel_mm
    inside = tissue > rng.uniform(8, 16)
    organs = np.zeros(shape, dtype=np.float32)
    for grain_mm, most in ((53, 0.10), (22, 0.10), (10, 0.09), (5, 0.06)):
        organs += rng.uniform(0.05, 1.0) * most * _texture(rng, shape, pixel_mm, grain_mm)
    # Bowels are less homogeneous than muscles.
    z = framing.grid()[0]
    top, bottom = spine.centre[FIRST_THORACIC + 6][2], spine.centre[LAST_LUMBAR + 2][2]
    belly = np.clip((top - z) / 40, 0, 1) * np.clip((z - bottom) / 40, 0, 1)
    organs = 1 + organs * (0.4 + 0.6 * belly).astype(np.float32)
    mass = np.maximum(tissue - air, 3.0)
    level = rng.normal(92, 7) * (mass / 190.0) ** rng.uniform(0.25, 0.42) * organs
    trabeculae = (
        1
        + rng.uniform(0.0, 0.11) * _texture(rng, shape, pixel_mm, 5.3)
        + rng.uniform(0.0, 0.07) * _texture(rng, shape, pixel_mm, 2.9)
    )
    shown = level + rng.uniform(58, 95) * bone * trabeculae
    noise = (rng.uniform(0.3, 1.7) + rng.uniform(0.006, 0.032) * shown) * rng.standard_normal(shape, dtype=np.float32)
    shown = shown + cv2.GaussianBlur(noise, (0, 0), 0.45) * 1.3
    if scanner.moved:
        shown, inside = _streaks(rng, scanner, shown, inside)
    bone_image = _display(scanner, framing, spine, shown, inside)

    whole = rng.normal(232, 6) * (mass / 225.0) ** 0.62 * (1 + 0.03 * _texture(rng, shape, pixel_mm, 39))
    grain = (1.5 + 2.5 * np.minimum(bone, 2.0)) * rng.standard_normal(shape, dtype=np.float32)
    return bone_image, _display(scanner, framing, spine, whole + 4 * bone + grain, inside)


def _display(scanner: Scanner, framing: Framing, spine: SpineShape, levels: Image, inside: NDArray[np.bool_]) -> Shown:
    """Window, quantise and label levels as a scanner does; background is 0, or the highest value if inverted."""
    low, high = scanner.window or (0.0, 255.0)
    white = 2**scanner.bits - 1
    most = white // scanner.step * scanner.step - (scanner.step - 1) * scanner.step
    share = np.clip((levels - low) / (high - low), 0, 1) ** np.float32(scanner.gamma)
    steps = np.round(share * white / scanner.step) * scanner.step
    shown = np.where(inside, np.clip(steps, scanner.step, most), 0)
    if scanner.regions:
        _draw_regions(shown, framing, spine, float(most))
    if scanner.inverted:
        shown = white - shown
    return shown.astype(np.uint8 if scanner.bits == 8 else np.uint16)


def _draw_regions(shown: NDArray[Any], framing: Framing, spine: SpineShape, white: float) -> None:
    """Draw a whole-body analysis: both sides of the spine, the trunk's upper and lower ends, and the pelvis."""
    (top, left), (row_mm, column_mm) = framing.top_left_mm, framing.pixel_mm

    def line(*points: tuple[float, float]) -> None:
        path = [((x - left) / column_mm, (top - z) / row_mm) for x, z in points]
        cv2.polylines(shown, [np.round(path).astype(np.int32)], False, white, 1)

    first, last = spine.centre[FIRST_THORACIC - 2], spine.centre[LAST_LUMBAR]
    wide = 1.25 * float(spine.width[LAST_LUMBAR]) / 2 + 4
    for side in (-1, 1):
        line((first[0] + side * wide, first[2]), (last[0] + side * wide, last[2]))
        line((last[0] + side * wide, last[2]), (last[0] + side * 4, last[2] - 190))
        line((last[0] + side * 175, last[2] + 10), (last[0] + side * 4, last[2] - 190))
    line((left, first[2]), (left + shown.shape[1] * column_mm, first[2]))
    line((last[0] - 175, last[2] + 10), (last[0] + 175, last[2] + 10))


def _streaks(
    rng: np.random.Generator, scanner: Scanner, shown: Image, inside: NDArray[np.bool_]
) -> tuple[Image, NDArray[np.bool_]]:
    """Shift bands of rows sideways to simulate motion during the raster scan."""
    rows, columns = shown.shape
    shift = np.zeros(rows)
    for _ in range(scanner.moved):
        first, count = int(rng.integers(rows)), int(rng.integers(3, 40))
        shift[first : first + count] += rng.normal(0, 4.0) / scanner.pixel_mm[1]
    x = np.arange(columns)[None, :] + shift[:, None]
    y = np.broadcast_to(np.arange(rows)[:, None], x.shape)
    where = x.astype(np.float32), np.ascontiguousarray(y, dtype=np.float32)
    moved = cv2.remap(shown, *where, interpolation=cv2.INTER_LINEAR)
    return moved, cv2.remap(inside.astype(np.float32), *where, interpolation=cv2.INTER_LINEAR) > 0.5


def _texture(rng: np.random.Generator, shape: tuple[int, ...], pixel_mm: tuple[float, float], grain_mm: float) -> Image:
    """Return Gaussian noise of unit deviation and the given correlation length."""
    small = tuple(max(2, int(size * pitch / grain_mm)) for size, pitch in zip(shape, pixel_mm, strict=True))
    size = (shape[1], shape[0])
    grain = cv2.resize(rng.standard_normal(small, dtype=np.float32), size, interpolation=cv2.INTER_CUBIC)
    return (grain / max(float(grain.std()), 1e-6)).astype(np.float32)
