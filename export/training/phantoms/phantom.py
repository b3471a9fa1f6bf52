"""Generate synthetic whole-body absorptiometry scans with the true curves of the spine.

`python -m export.training.phantoms.phantom --count 8 --seed 1 --out phantoms` writes, for each person, the bone and the
soft-tissue image as DICOM files like those of a GE Lunar iDXA (or of another random scanner), the six true curves
(mm) and a contact sheet.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from edge_spine.network import CANONICAL_ROWS, CROP_SIZE, CURVE_ROWS, ROWS
from edge_spine.reconstruct import Curves
from edge_spine.vertebrae import Levels
from export.training.phantoms.absorptiometry import bone_density, soft_tissue
from export.training.phantoms.anatomy import draw_person, skeleton
from export.training.phantoms.extras import carried
from export.training.phantoms.person import Person
from export.training.phantoms.scanner import IDXA, Framing, Scanner, Shown, draw_framing, draw_scanner, scanner_images
from export.training.phantoms.shape import FIRST_THORACIC, LAST_LUMBAR, SpineShape, draw_build, draw_shape
from export.training.phantoms.variants import draw_variant, vary_discs

NOTE = "Synthetic phantom, not a person"
TILE_ROWS, TILE_COLUMNS = 810, 274


@dataclass(frozen=True)
class Subject:
    """Synthetic person on the table: the truth about a scan, without its images."""

    seed: int
    person: Person
    shape: SpineShape
    scanner: Scanner
    framing: Framing

    @property
    def model_pixel_mm(self) -> float:
        """Size of a canonical pixel for this person."""
        return self.person.extent_mm / CANONICAL_ROWS

    @property
    def row_heights_mm(self) -> NDArray[np.float64]:
        """Heights of the 209 rows of the true crop, mm from the middle of T1-L5."""
        return (CURVE_ROWS - (CROP_SIZE - 1) / 2) * -self.model_pixel_mm

    def crop_origin_px(self, margin: float = 0) -> tuple[float, float]:
        """Return row and column, in scan pixels, of pixel (0, 0) of the true crop widened by `margin` crop pixels.

        The true crop has the middle between the top of T1 and the bottom of L5 at its centre row, and the middle
        between the outermost borders of its 209 rows at its centre column.
        """
        half = (CROP_SIZE - 1) / 2 + margin
        borders = self.curves_at(self.row_heights_mm)
        x = (borders[:, 0].min() + borders[:, 2].max()) / 2
        z = half * self.model_pixel_mm
        x -= half * self.model_pixel_mm
        row_mm, column_mm = self.framing.pixel_mm
        return (self.framing.top_left_mm[0] - z) / row_mm, (x - self.framing.top_left_mm[1]) / column_mm

    def curves_at(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the six true curves at heights `z` (K,), mm from the middle of T1-L5, as (K, 6).

        A border is half a vertebra's width (depth) from the axis, perpendicular to it, in the plane of its view.
        """
        line = self.shape.line
        slope = np.gradient(line[:, :2], line[:, 2], axis=0)
        stretch = np.sqrt(1 + slope**2)
        columns = []
        for axis, half in ((0, self.shape.half_width), (1, self.shape.half_depth)):
            for side in (-1, 0, 1):
                border = line[:, axis] + side * half * stretch[:, axis]
                columns.append(np.interp(-z, -line[:, 2], border))
        return np.stack(columns, axis=1)

    @property
    def trunk_ends(self) -> NDArray[np.float64]:
        """Return the centres of the top of T1 and of the bottom of L5, (2, 3) mm."""
        shape = self.shape
        ends = [
            shape.centre[level] + sign * shape.tangent[level] * shape.height[level] / 2
            for level, sign in ((FIRST_THORACIC, -1), (LAST_LUMBAR, 1))
        ]
        return np.stack(ends)

    @property
    def body_centres(self) -> NDArray[np.float64]:
        """Return the body centres of T1 to L5, (17, 3) mm."""
        return self.shape.centre[FIRST_THORACIC : LAST_LUMBAR + 1]

    @property
    def tilts_deg(self) -> NDArray[np.float64]:
        """Return the tilt of the bodies of T1 to L5 in the coronal and in the sagittal view, (17, 2) degrees.

        As the endplates show it; positive where the lower endplate faces to the patient's left, or to posterior.
        """
        up = self.shape.axes[FIRST_THORACIC : LAST_LUMBAR + 1, 2]
        return np.degrees(np.arctan2(-up[:, :2], up[:, 2:]))

    @property
    def levels(self) -> Levels:
        """Return the true heights of the vertebrae with the origin of a result."""
        top, ends = self.framing.top_left_mm[0], self.trunk_ends[:, 2]
        return Levels(self.body_centres[:, 2] - top, float(ends[0] - top), float(ends[1] - top))

    @property
    def trunk_heights_mm(self) -> NDArray[np.float64]:
        """Return 209 even heights from the top of T1 to the bottom of L5, with the origin of a result."""
        levels = self.levels
        return np.linspace(levels.top, levels.bottom, ROWS)

    def truth(self, z: NDArray[np.float64] | None = None) -> Curves:
        """Return the six true curves, mm, with the origin of a result.

        Parameters
        ----------
        z : (209,) array, optional
            Heights of a result's rows; those of the true crop by default.
        """
        top, left = self.framing.top_left_mm
        anchored = self.row_heights_mm - top if z is None else z
        curves = self.curves_at(anchored + top)
        return Curves(z=anchored, coronal=curves[:, :3] - left, sagittal=curves[:, 3:] - curves[:, 4].mean())


@dataclass(frozen=True)
class Phantom(Subject):
    """A subject and the scanner's two images, (rows, columns) uint8, or uint16 above 8 bits."""

    bone: Shown
    tissue: Shown


def draw_subject(rng: np.random.Generator, seed: int, scanner: Scanner | None = None, variants: float = 0.0) -> Subject:
    """Draw person, spine, position on the table and, unless given, scanner; `variants` as in `draw_variant`."""
    person = replace(draw_person(rng), variant=draw_variant(seed, variants))
    length = person.extent_mm * 0.258 * float(rng.normal(1.0, 0.02))
    build = vary_discs(draw_build(rng, person.scale * float(rng.normal(1.0, 0.03))), person.variant)
    shape = draw_shape(rng, length, build, person.lean_deg)
    drawn = draw_scanner(rng)
    chosen = scanner or drawn
    return Subject(seed, person, shape, chosen, draw_framing(rng, person, chosen))


def make_phantom(seed: int, device: str = "cpu", scanner: Scanner | None = None, variants: float = 0.0) -> Phantom:
    """Draw the subject of a seed and scan it; `device` integrates its bones.

    A given `scanner` replaces the random one for the same person. `variants` is the share of unusual numbers of ribs,
    and of transitional last vertebrae (`draw_variant`).
    """
    rng = np.random.default_rng(seed)
    subject = draw_subject(rng, seed, scanner, variants)
    person, shape, framing = subject.person, subject.shape, subject.framing
    bone = bone_density(skeleton(rng, person, shape), framing, subject.scanner.blur_px, device)
    things = carried(rng, person, shape)
    if things is not None:
        bone += bone_density(things, framing, subject.scanner.blur_px, device)
    tissue, air = soft_tissue(rng, person, shape, framing)
    images = scanner_images(rng, subject.scanner, framing, shape, bone, tissue, air)
    return Phantom(seed, person, shape, subject.scanner, framing, *images)


def make_subject(seed: int, scanner: Scanner | None = None) -> Subject:
    """Draw the same subject as `make_phantom`, without images."""
    return draw_subject(np.random.default_rng(seed), seed, scanner)


def dicom_file(phantom: Phantom, *, tissue: bool = False) -> Dataset:
    """Return one image as DICOM like the scanner's: CR, UIDs from the seed.

    As a Lunar iDXA it states its spacing only through ExposedArea, as a simulated display only by PixelSpacing.
    """
    pixels = phantom.tissue if tissue else phantom.bone
    kind = "tissue" if tissue else "bone"
    uid = generate_uid(entropy_srcs=["edge-spine phantom", str(phantom.seed), kind])
    study, series = (generate_uid(entropy_srcs=["edge-spine phantom", str(phantom.seed), k]) for k in ("st", "se"))
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = uid
    file.SOPClassUID, file.SOPInstanceUID = ComputedRadiographyImageStorage, uid
    file.StudyInstanceUID, file.SeriesInstanceUID = study, series
    file.StudyDate = file.StudyTime = file.AccessionNumber = file.ReferringPhysicianName = file.StudyID = ""
    row_mm, column_mm = phantom.framing.pixel_mm
    file.Modality = "CR"
    if phantom.scanner.window is None:
        file.Manufacturer, file.ManufacturerModelName = "GE Healthcare", "Lunar iDXA (simulated)"
        file.ExposedArea = [round(column_mm * pixels.shape[1]), round(row_mm * pixels.shape[0])]
    else:
        file.Manufacturer, file.ManufacturerModelName = "Simulated", "Windowed display (simulated)"
        file.PixelSpacing = [round(row_mm, 6), round(column_mm, 6)]
    file.PatientName, file.PatientID = "PHANTOM^SYNTHETIC", f"PHANTOM-{phantom.seed}"
    file.PatientBirthDate, file.PatientSex = "", "F" if phantom.person.female else "M"
    file.ImageComments = NOTE
    file.ProtocolName, file.BodyPartExamined, file.ViewPosition = "Total Body", "", ""
    file.SeriesNumber, file.InstanceNumber = 1, 11 if tissue else 12
    file.PatientOrientation = ["L", "F"]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.Rows, file.Columns = pixels.shape
    file.BitsAllocated, file.BitsStored = 8 * pixels.itemsize, phantom.scanner.bits
    file.HighBit, file.PixelRepresentation = phantom.scanner.bits - 1, 0
    data = pixels.tobytes()
    file.PixelData = data + b"\0" * (len(data) % 2)
    return file


def contact_sheet(phantoms: list[Phantom], columns: int = 6) -> NDArray[np.uint8]:
    """Return a contact sheet (BGR) of bone images, each with its true coronal curves."""
    tiles = []
    for phantom in phantoms:
        grey = (phantom.bone >> (phantom.scanner.bits - 8)).astype(np.uint8)
        plain = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
        drawn = plain.copy()
        truth = phantom.truth()
        row = -truth.z / phantom.framing.pixel_mm[0]
        for x in truth.coronal.T:
            points = np.stack([x / phantom.framing.pixel_mm[1], row], axis=1)
            cv2.polylines(drawn, [np.round(points * 16).astype(np.int32)], False, (80, 200, 255), 1, cv2.LINE_AA, 4)
        # Anisotropic pixels are resampled to square ones.
        size = tuple(
            round(n * mm / 2.42) for n, mm in zip(grey.shape[::-1], phantom.framing.pixel_mm[::-1], strict=True)
        )
        tile = np.zeros((TILE_ROWS, 2 * TILE_COLUMNS, 3), dtype=np.uint8)
        for k, picture in enumerate((plain, drawn)):
            fitted = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)[:TILE_ROWS, :TILE_COLUMNS]
            tile[: fitted.shape[0], k * TILE_COLUMNS : k * TILE_COLUMNS + fitted.shape[1]] = fitted
        tiles.append(tile)
    while len(tiles) % columns and len(tiles) > columns:
        tiles.append(np.zeros_like(tiles[0]))
    rows = [np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)]
    return np.vstack(rows)


def main(argv: list[str] | None = None) -> int:
    """Write phantoms to a folder."""
    parser = argparse.ArgumentParser(prog="python -m export.training.phantoms.phantom", description=__doc__)
    parser.add_argument("--count", type=int, default=8, help="how many people (default 8)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first; the next ones follow it")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--idxa", action="store_true", help="scan all of them on a plain iDXA, not on drawn scanners")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    shown: list[Phantom] = []
    for seed in range(options.seed, options.seed + options.count):
        phantom = make_phantom(seed, scanner=IDXA if options.idxa else None)
        for kind in ("bone", "tissue"):
            path = options.out / f"phantom_{seed}_{kind}.dcm"
            dicom_file(phantom, tissue=kind == "tissue").save_as(path, enforce_file_format=True)
        truth = phantom.truth()
        record = {
            "note": NOTE,
            "seed": seed,
            "extent_mm": phantom.person.extent_mm,
            "model_pixel_mm": phantom.model_pixel_mm,
            "crop_origin_px": list(phantom.crop_origin_px()),
            "z": truth.z.round(3).tolist(),
            "coronal": truth.coronal.round(3).tolist(),
            "sagittal": truth.sagittal.round(3).tolist(),
        }
        (options.out / f"phantom_{seed}_truth.json").write_text(json.dumps(record), encoding="utf-8")
        if len(shown) < 24:
            shown.append(phantom)
    cv2.imwrite(str(options.out / "contact_sheet.png"), contact_sheet(shown))
    print(f"wrote {options.count} phantoms to {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
