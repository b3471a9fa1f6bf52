"""Build images that must be refused, and phantom scans that must be accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from export.training.phantoms.absorptiometry import bone_density, soft_tissue
from export.training.phantoms.anatomy import skeleton
from export.training.phantoms.phantom import Phantom
from export.training.phantoms.scanner import Framing

BODY_MM, TABLE_MM = 1800.0, 660.0

Pixels = NDArray[Any]
Spacing = tuple[float, float]
Picture = tuple[Pixels, Spacing]
Builder = Callable[[Phantom, np.random.Generator], Picture]


# Parts of bodies


def cut(phantom: Phantom, pixels: Pixels, rows: tuple[float, float], columns_mm: tuple[float, float]) -> Pixels:
    """Cut a window: rows as fractions of the body below its crown, columns in mm from its axis at pelvis height."""
    (top, left), (row_mm, column_mm) = phantom.framing.top_left_mm, phantom.framing.pixel_mm
    first, last = ((top - phantom.person.z(share)) / row_mm for share in rows)
    begin, end = ((x - left) / column_mm for x in columns_mm)
    return pixels[max(0, int(first)) : max(0, int(last)), max(0, int(begin)) : max(0, int(end))]


def enlarged(window: Pixels, pixel_mm: Spacing, rng: np.random.Generator) -> Picture:
    """Enlarge a window to the size of a body; every second one also to the width of the table."""
    rows = 791
    width_mm = window.shape[1] * pixel_mm[1] / (window.shape[0] * pixel_mm[0]) * rows * 2.43
    columns = min(round(width_mm / 2.43), 900) if rng.random() < 0.5 else round(TABLE_MM / 2.43)
    return cv2.resize(window, (columns, rows), interpolation=cv2.INTER_CUBIC), (2.43, 2.43)


def true_size(window: Pixels, pixel_mm: Spacing, rng: np.random.Generator) -> Picture:
    """Return a window at its true size with the finer pixels of a regional scan."""
    fine = float(rng.uniform(0.25, 1.0))
    rows, columns = (round(n * mm / fine) for n, mm in zip(window.shape, pixel_mm, strict=True))
    return cv2.resize(window, (columns, rows), interpolation=cv2.INTER_CUBIC), (fine, fine)


Sizing = Callable[[Pixels, Spacing, np.random.Generator], Picture]


def joint(
    phantom: Phantom,
    rng: np.random.Generator,
    sizing: Sizing,
    rows: tuple[float, float],
    columns_mm: tuple[float, float],
) -> Picture:
    """A window on one side of the body, left or right, as in `cut`."""
    side = 1 if rng.random() < 0.5 else -1
    near, far = sorted(side * column for column in columns_mm)
    return sizing(cut(phantom, phantom.bone, rows, (near, far)), phantom.framing.pixel_mm, rng)


def lumbar_spine(phantom: Phantom, rng: np.random.Generator, sizing: Sizing) -> Picture:
    """An antero-posterior scan of the lumbar spine."""
    half = float(rng.uniform(60, 110))
    top = float(rng.uniform(0.26, 0.30))
    return sizing(cut(phantom, phantom.bone, (top, 0.43), (-half, half)), phantom.framing.pixel_mm, rng)


def chest_film(phantom: Phantom, rng: np.random.Generator, sizing: Sizing) -> Picture:
    """A chest radiograph with dark lungs and white bones, or inverted."""
    bone, tissue, air = layers(phantom)
    film = 1 - np.exp(-(rng.uniform(0.008, 0.02) * np.maximum(tissue - air, 0) + rng.uniform(0.3, 0.8) * bone))
    window = cut(phantom, film, (0.135, 0.30), (-190.0, 190.0))
    low, high = np.percentile(window, [2, 99.5])
    window = np.clip((window - low) / (high - low), 0, 1) * 250
    return sizing(as_bytes(250 - window if rng.random() < 0.5 else window), phantom.framing.pixel_mm, rng)


def lateral_spine(phantom: Phantom, rng: np.random.Generator, sizing: Sizing) -> Picture:
    """A lateral scan of the spine from T4 to L5."""
    return sizing(cut(phantom, lateral(phantom, rng), (0.18, 0.43), (-85.0, 85.0)), phantom.framing.pixel_mm, rng)


def lateral_body(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """A lateral whole-body scan."""
    return lateral(phantom, rng), phantom.framing.pixel_mm


def layers(phantom: Phantom) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return bone (g/cm2), soft tissue and air (mm) of a phantom."""
    rng = np.random.default_rng(phantom.seed)
    bone = bone_density(skeleton(rng, phantom.person, phantom.shape), phantom.framing)
    return bone, *soft_tissue(rng, phantom.person, phantom.shape, phantom.framing)


def lateral(phantom: Phantom, rng: np.random.Generator) -> Pixels:
    """Scan a phantom rotated by 90 degrees: bones integrated along x, depth and width exchanged."""
    framing = phantom.framing
    solids = skeleton(np.random.default_rng(phantom.seed), phantom.person, phantom.shape)
    turned = replace(solids, centre=solids.centre[:, [1, 0, 2]], axes=solids.axes[:, :, [1, 0, 2]])
    back = 75.0 * phantom.person.scale
    left = -framing.shape[1] * framing.pixel_mm[1] / 2
    bone = bone_density(turned, Framing(framing.shape, framing.pixel_mm, (framing.top_left_mm[0], left)))
    tissue, _ = soft_tissue(rng, phantom.person, phantom.shape, framing)
    deep, wide = tissue.max(axis=1, keepdims=True), (tissue > 8).sum(axis=1, keepdims=True) * framing.pixel_mm[1]
    y = left + np.arange(framing.shape[1])[None, :] * framing.pixel_mm[1]
    away = np.abs(y - (back - deep / 2)) / np.maximum(deep / 2, 1)
    through = wide * np.maximum(1 - away**2.4, 0) ** (1 / 2.4)
    shown = 92 * (through / 300) ** 0.33 + 75 * bone + 2.7 * rng.standard_normal(framing.shape)
    return as_bytes(np.where(through > 12, np.clip(shown, 2, 252), 0))


def as_bytes(levels: Pixels) -> NDArray[np.uint8]:
    """Round to 8 bits."""
    return np.clip(np.round(levels), 0, 255).astype(np.uint8)


# Whole bodies with defects


def background(phantom: Phantom) -> int:
    """Return the pixel value of the empty table."""
    return 2**phantom.scanner.bits - 1 if phantom.scanner.inverted else 0


def row_of(phantom: Phantom, share: float) -> int:
    """Return the row at a fraction of the body below its crown."""
    return int((phantom.framing.top_left_mm[0] - phantom.person.z(share)) / phantom.framing.pixel_mm[0])


def blanked(phantom: Phantom, rows: slice) -> Picture:
    """Empty some rows of the bone image."""
    pixels = phantom.bone.copy()
    pixels[rows] = background(phantom)
    return pixels, phantom.framing.pixel_mm


def legs(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """A scan without everything above the pelvis, or above the thighs."""
    return blanked(phantom, slice(0, row_of(phantom, float(rng.uniform(0.42, 0.52)))))


def lower_half(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """A scan without everything above mid-thorax; every second one is cropped there."""
    first = row_of(phantom, float(rng.uniform(0.22, 0.32)))
    if rng.random() < 0.5:
        return phantom.bone[first:], phantom.framing.pixel_mm
    return blanked(phantom, slice(0, first))


def upper_half(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """A scan without everything below the lower ribs, and so without lumbar spine."""
    return blanked(phantom, slice(row_of(phantom, float(rng.uniform(0.26, 0.34))), None))


def squashed(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """A body of half its height: every second row removed, spacing unchanged."""
    rows, columns = phantom.bone.shape
    half = cv2.resize(phantom.bone, (columns, rows // 2), interpolation=cv2.INTER_AREA)
    above = int(rng.integers(0, rows - rows // 2))
    pixels = np.full_like(phantom.bone, background(phantom))
    pixels[above : above + rows // 2] = half
    return pixels, phantom.framing.pixel_mm


def upside_down(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """A scan with the feet at the top."""
    return np.rot90(phantom.bone, 2) if rng.random() < 0.5 else phantom.bone[::-1], phantom.framing.pixel_mm


def on_its_side(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """A scan with the head at one side."""
    turns = 1 if rng.random() < 0.5 else 3
    return np.rot90(phantom.bone, turns), (phantom.framing.pixel_mm[1], phantom.framing.pixel_mm[0])


def two_bodies(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """Two people side by side at full width."""
    other = phantom.bone[:, ::-1] if rng.random() < 0.5 else np.roll(phantom.bone, 12, axis=0)
    return np.hstack([phantom.bone, other]), phantom.framing.pixel_mm


def two_squeezed(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """Two people side by side, squeezed into the width of one."""
    pair, spacing = two_bodies(phantom, rng)
    return pair, (spacing[0], spacing[1] / 2)


def spine_hidden(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """A body whose spine is replaced by its surroundings."""
    pixels = phantom.bone.copy()
    row_mm, column_mm = phantom.framing.pixel_mm
    truth = phantom.truth(-np.arange(pixels.shape[0]) * row_mm)
    band = round(52 / column_mm)
    for row in range(row_of(phantom, 0.10), min(row_of(phantom, 0.46), pixels.shape[0])):
        middle = round(float(truth.coronal[row, 1]) / column_mm)
        sides = pixels[row, middle - 2 * band : middle - band], pixels[row, middle + band : middle + 2 * band]
        pixels[row, middle - band : middle] = sides[0][::-1]
        pixels[row, middle : middle + band] = sides[1][::-1]
    return pixels, phantom.framing.pixel_mm


def tissue_image(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """The soft-tissue image of the scan."""
    return phantom.tissue, phantom.framing.pixel_mm


# Images without a body


def noise(phantom: Phantom, rng: np.random.Generator, exponent: float, outline: bool = False) -> Picture:
    """Noise whose spectrum falls with `exponent`, in the whole image, an ellipse or the outline of a body."""
    shape = phantom.bone.shape
    grain = spectral(rng, shape, exponent) * 45 + 120
    if outline:
        body = phantom.tissue != background(phantom)
        grain = np.where(body, grain, 0)
    elif rng.random() < 0.5:
        grain = grain * ellipse(shape)
    return as_bytes(grain), phantom.framing.pixel_mm


def flat_outline(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """The silhouette of a body with some noise."""
    body = phantom.tissue != background(phantom)
    return as_bytes(np.where(body, 120 + rng.normal(0, 4, body.shape), 0)), phantom.framing.pixel_mm


def photograph(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """A coloured scene: gradient, blurred shapes, 1/f detail."""
    rows, columns = phantom.bone.shape
    scene = np.empty((rows, columns, 3), dtype=np.float32)
    slope = np.linspace(rng.uniform(20, 120), rng.uniform(100, 230), rows)[:, None]
    for channel in range(3):
        scene[..., channel] = slope + 25 * spectral(rng, (rows, columns), 1.0)
    for _ in range(int(rng.integers(3, 12))):
        colour = tuple(rng.uniform(0, 255, 3))
        place = int(rng.integers(columns)), int(rng.integers(rows))
        size = int(rng.integers(10, 160)), int(rng.integers(10, 300))
        if rng.random() < 0.5:
            cv2.ellipse(scene, place, size, float(rng.uniform(0, 180)), 0, 360, colour, -1)
        else:
            cv2.rectangle(scene, place, (place[0] + size[0], place[1] + size[1]), colour, -1)
    return as_bytes(cv2.GaussianBlur(scene, (0, 0), float(rng.uniform(0.5, 3)))), phantom.framing.pixel_mm


def shapes(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """Bars and discs on black, with an upright bar in the middle like a spine."""
    rows, columns = phantom.bone.shape
    drawn = np.zeros((rows, columns), dtype=np.float32)
    cv2.ellipse(drawn, (columns // 2, rows // 2), (columns // 3, int(rows * 0.46)), 0, 0, 360, 90.0, -1)
    cv2.rectangle(drawn, (columns // 2 - 8, rows // 6), (columns // 2 + 8, int(rows * 0.43)), 200.0, -1)
    for _ in range(int(rng.integers(0, 6))):
        place = int(rng.integers(columns)), int(rng.integers(rows))
        cv2.circle(drawn, place, int(rng.integers(5, 60)), float(rng.uniform(50, 255)), -1)
    return as_bytes(drawn), phantom.framing.pixel_mm


def empty_table(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """A table without a person: empty, noise, the edge of a mattress, or a ruler."""
    rows, columns = phantom.bone.shape
    pixels = np.abs(rng.normal(0, 3, (rows, columns))) if rng.random() < 0.5 else np.zeros((rows, columns))
    if rng.random() < 0.5:
        pixels[:, 20:-20] += rng.uniform(3, 12)
    if rng.random() < 0.5:
        place = int(rng.integers(rows - 60)), int(rng.integers(columns - 40))
        pixels[place[0] : place[0] + 60, place[1] : place[1] + int(rng.integers(3, 40))] = 180
    return as_bytes(pixels), phantom.framing.pixel_mm


def spectral(rng: np.random.Generator, shape: tuple[int, int], exponent: float) -> NDArray[np.float64]:
    """Gaussian noise of unit deviation with amplitude falling as frequency to the power of `exponent`."""
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :])
    frequency[0, 0] = np.inf if exponent else 1.0
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) / frequency**exponent, s=shape)
    return np.asarray(field / field.std())


def ellipse(shape: tuple[int, int]) -> NDArray[np.bool_]:
    """An upright ellipse that fills most of an image."""
    y, x = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    return np.asarray((y / 0.92) ** 2 + (x / 0.6) ** 2 < 1)


# Scans that must be accepted


def plain(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """The unchanged bone image."""
    return phantom.bone, phantom.framing.pixel_mm


def mirrored(phantom: Phantom, rng: np.random.Generator) -> Picture:
    """The mirrored bone image, which cannot be recognised as such."""
    return phantom.bone[:, ::-1], phantom.framing.pixel_mm


REFUSED: dict[str, Builder] = {
    **{
        f"{name}, {size}": partial(part, sizing=sizing)
        for name, part in (
            ("hip", partial(joint, rows=(0.43, 0.56), columns_mm=(20.0, 190.0))),
            ("knee", partial(joint, rows=(0.65, 0.77), columns_mm=(15.0, 165.0))),
            ("lumbar spine", lumbar_spine),
            ("lateral spine", lateral_spine),
            ("chest film", chest_film),
        )
        for size, sizing in (("enlarged", enlarged), ("true size", true_size))
    },
    "lateral whole body": lateral_body,
    "soft-tissue image": tissue_image,
    "legs only": legs,
    "lower half": lower_half,
    "upper half": upper_half,
    "squashed to half height": squashed,
    "upside-down": upside_down,
    "on its side": on_its_side,
    "two bodies": two_bodies,
    "two bodies, squeezed": two_squeezed,
    "spine painted over": spine_hidden,
    "white noise": partial(noise, exponent=0.0),
    "pink noise": partial(noise, exponent=1.0),
    "white noise in a body's outline": partial(noise, exponent=0.0, outline=True),
    "pink noise in a body's outline": partial(noise, exponent=1.0, outline=True),
    "flat outline of a body": flat_outline,
    "photograph": photograph,
    "shapes": shapes,
    "empty table": empty_table,
}
TAKEN: dict[str, Builder] = {"phantom": plain, "phantom, mirrored": mirrored}
