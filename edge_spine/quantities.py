"""The table of measured numbers: what every output calls them, their units, decimals and DICOM codes."""

from __future__ import annotations

from dataclasses import dataclass

# Coding scheme of the concepts that no public scheme has (PS3.16, 8.2).
SCHEME = "99EDGESPINE"


def rounded(value: float, digits: int = 3) -> float:
    """Return a rounded number, never -0.0."""
    return round(float(value), digits) + 0.0


@dataclass(frozen=True)
class Quantity:
    """One measured number.

    Attributes
    ----------
    label : str
        Name in reports.
    unit : {"deg", "mm", "ml"}
        Unit in UCUM.
    decimals : int
        Decimals in reports.
    code : (str, str, str)
        Code value, coding scheme designator and code meaning in the structured report.
    definition : str
        What it is, in one sentence without a full stop.
    inferred : bool
        Whether it depends on the sagittal curves, which the scan does not show.
    error : str, optional
        Attribute that holds the half-width of its 90 % interval.
    """

    label: str
    unit: str
    decimals: int
    code: tuple[str, str, str]
    definition: str
    inferred: bool = False
    error: str | None = None

    def text(self, value: float, error: float | None = None) -> str:
        """Return a value with its unit, as reports show it; whole numbers where its error is given."""
        decimals = self.decimals if error is None else 0
        number = f"{rounded(value, decimals):.{decimals}f}" + ("" if error is None else f" ± {error:.0f}")
        return number + ("°" if self.unit == "deg" else f" {self.unit}")

    def of(self, measured: object, name: str) -> tuple[float | None, float | None]:
        """Return its value and error in an object of `edge_spine.measure`; None where there is none."""
        return getattr(measured, name), None if self.error is None else getattr(measured, self.error)


# Keys are attributes of `edge_spine.measure.Measurements`, and of result.json in this order. No public code names an
# angle of kyphosis or lordosis, and "Cobb angle" beside a coronal image would mislead.
QUANTITIES = {
    "max_cobb_deg": Quantity(
        *("Largest Cobb angle", "deg", 1, ("285285000", "SCT", "Cobb angle")),
        "Cobb angle of the largest lateral curve; the largest difference of tilt where no curve reaches 3 degrees",
        error="max_cobb_error_90_deg",
    ),
    "kyphosis_t4_t12_deg": Quantity(
        *("Kyphosis T4 to T12", "deg", 1, ("kyphosis-t4-t12", SCHEME, "Kyphosis T4-T12, inferred, not seen")),
        "Tilt of T4 against that of T12 in the sagittal view; positive if convex to posterior",
        *(True, "kyphosis_error_90_deg"),
    ),
    "lordosis_l1_l5_deg": Quantity(
        *("Lordosis L1 to L5", "deg", 1, ("lordosis-l1-l5", SCHEME, "Lordosis L1-L5, inferred, not seen")),
        "Tilt of L5 against that of L1 in the sagittal view; positive if convex to anterior",
        *(True, "lordosis_error_90_deg"),
    ),
    "plane_of_maximal_curvature_deg": Quantity(
        *("Plane of maximal curvature", "deg", 0),
        ("max-curv-plane", SCHEME, "Azimuth of the plane of maximal curvature, inferred"),
        "Azimuth, from the patient's left (0) towards posterior (90), of the vertical plane in which the largest "
        "lateral curve is most curved; none without a lateral curve that is larger than its error",
        True,
    ),
    "centreline_length_mm": Quantity(
        *("Length T1 to L5", "mm", 0, ("121211", "DCM", "Path length"), "Length of the 3D centreline", True)
    ),
    "max_lateral_deviation_mm": Quantity(
        *("Largest lateral deviation", "mm", 1, ("max-lateral-dev", SCHEME, "Greatest lateral deviation")),
        "Greatest distance, in the coronal plane, from the straight line between the ends of the centreline",
    ),
    "volume_ml": Quantity(
        *("Volume", "ml", 0, ("118565006", "SCT", "Volume"), "Volume of the reconstructed vertebral column", True)
    ),
}
# Attributes of each lateral curve, `edge_spine.measure.LevelledCurve`: its numbers, then its names.
CURVE_QUANTITIES = {
    "cobb_deg": Quantity(
        *("Cobb", "deg", 1, ("285285000", "SCT", "Cobb angle")),
        "Difference of tilt between the two most tilted vertebrae of the curve",
    ),
    "ferguson_deg": Quantity(
        *("Ferguson", "deg", 1, ("ferguson-angle", SCHEME, "Ferguson angle")),
        "Angle at the apex between the lines to the centres of the two ends",
    ),
}
# Attributes that hold the half-widths of 90 % intervals.
ERRORS = tuple(quantity.error for quantity in QUANTITIES.values() if quantity.error is not None)
# Columns of the network's curves in each view, and of the tables that hold all of them with the bands of the centres.
BORDERS = {"coronal": ("left", "centre", "right"), "sagittal": ("anterior", "centre", "posterior")}
ROWS_OF_209 = (
    "z_mm",
    *(f"{view}_{name}_mm" for view, names in BORDERS.items() for name in names),
    *(f"{view}_band_90_mm" for view in BORDERS),
)
CURVE_NAMES = {
    "side": "The patient's side to which the curve is convex",
    "apex_level": "Vertebra that is farthest from the straight line between the ends",
    "upper_end_level": "Upper end vertebra, the most tilted one above the apex",
    "lower_end_level": "Lower end vertebra, the most tilted one below the apex",
}
