r"""spine.sr.dcm: the measurements as a Comprehensive 3D SR (TID 1500).

2D coordinates are those of the stored image, before any turn at reading: column and row, with 0\0 at the upper left
corner of the first pixel (PS3.3 C.18.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import PlanarROIMeasurementsAndQualitativeEvaluations as Group
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from edge_spine.errors import OutputError
from edge_spine.measure import KYPHOSIS, LORDOSIS, LevelledCurve
from edge_spine.outputs.dicom import codes
from edge_spine.outputs.dicom.codes import coded_item
from edge_spine.outputs.dicom.identity import CAUTION, MANUFACTURER, Identity, device_uid, finished, identify
from edge_spine.outputs.dicom.values import REQUIRED
from edge_spine.outputs.drawing.end_lines import end_lines
from edge_spine.outputs.wording import in_words, side_view_worth
from edge_spine.quantities import CURVE_QUANTITIES, QUANTITIES, SCHEME, Quantity
from edge_spine.reading.dicom import quiet_pydicom
from edge_spine.result import NOTICE, SpineResult
from edge_spine.version import __version__

_CONTAINS = "CONTAINS"
# A viewer on Cornerstone, such as OHIF, turns a group whose tracking identifier begins with this, and whose first
# number has coordinates of its own, into a measurement of its Cobb angle tool.
_COBB_TOOL = "Cornerstone3DTools@^0.1.0:CobbAngle:"
# The numbers of the whole centreline, in the order of the report.
_CENTRELINE = (
    *("centreline_length_mm", "max_lateral_deviation_mm"),
    *("plane_of_maximal_curvature_deg", "volume_ml"),
)
_FRAME = (
    "The 3D centreline is in a frame of reference of its own, in mm: x to the patient's left, y to posterior, z to "
    "the head; x and z from the centre of the image's first pixel when the head is up and the patient's right at "
    "image left, y from the centreline's mean. DXA defines no 3D patient frame."
)
_POSTURE = (
    "Measured lying down: angles are smaller than on standing images. {levels} What concerns the sagittal plane, and "
    "length and volume, is inferred, not seen; its region on the image only shows the part of the spine that is meant. "
    "Ranges of uncertainty are calibrated 90 % intervals, wider where the image is disturbed."
)
_LEVELS_FOUND = "Levels are those of the vertebral bodies found in the image."
_LEVELS_AVERAGE = "Levels are estimated from average proportions, not counted."


@quiet_pydicom()
def render(result: SpineResult) -> bytes:
    """Return the structured report as a DICOM file: complete, unverified, with the numbers of result.json.

    OutputError as in `identify`, and where the SOP class of the scan is unknown.
    """
    identity = identify(result)
    source = _source_for_highdicom(identity)
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=_observer(result)),
        procedure_reported=codes.PROCEDURE,
        imaging_measurements=_Groups(result, identity).all(),
        title=codes.REPORT_TITLE,
        referenced_images=[source],
    )
    report[0].ContentSequence.extend([_evaluations(result), _centreline_3d(result, identity)])
    document = sr.Comprehensive3DSR(
        evidence=[source],
        content=report,
        series_instance_uid=identity.uid("series", "sr"),
        series_number=1,
        sop_instance_uid=identity.uid("series", "sr"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[
            CodingSchemeIdentificationItem(
                SCHEME, name="edge-spine", version=__version__, responsible_organization="edge-spine"
            )
        ],
    )
    return finished(document, identity, result, "sr")


def stored_points(result: SpineResult, x_mm: NDArray[np.float64], z_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return column and row (N, 2), with three decimals, of points on the stored image; x and z (N,) as in `Curves`."""
    scan = result.scan
    rows, columns = scan.pixels.shape
    row_mm, column_mm = scan.pixel_spacing_mm
    stored = scan.turn.stored_points(np.column_stack([x_mm / column_mm, -z_mm / row_mm]), (rows, columns))
    stored_rows, stored_columns = scan.turn.shape((rows, columns))
    inside: NDArray[np.float64] = np.clip(stored + 0.5, 0.0, (stored_columns, stored_rows)).round(3)
    return inside


class _Groups:
    """The measurement groups (TID 1410) of one result."""

    def __init__(self, result: SpineResult, identity: Identity) -> None:
        self._result = result
        self._identity = identity
        self._numbers: dict[str, Any] = result.to_dict()["measurements"]

    def all(self) -> list[Group]:
        return [
            *(self._lateral_curve(*numbered) for numbered in enumerate(self._result.measurements.scoliosis_curves)),
            self._sagittal_curve("kyphosis T4-T12", "kyphosis_t4_t12_deg", KYPHOSIS),
            self._sagittal_curve("lordosis L1-L5", "lordosis_l1_l5_deg", LORDOSIS),
            self._centreline(),
        ]

    def _lateral_curve(self, number: int, curve: LevelledCurve) -> Group:
        numbers = self._numbers["scoliosis_curves"][number]
        # the interval is calibrated for the largest curve
        error = None if number else self._numbers["max_cobb_error_90_deg"]
        name, region = f"lateral curve {number + 1}", self._region(self._cobb_points(curve))
        cobb, ferguson = (
            _measurement(quantity, numbers[key], codes.CURVE_METHOD, error if key == "cobb_deg" else None)
            for key, quantity in CURVE_QUANTITIES.items()
        )
        group = self._group(
            name,
            codes.LATERAL_CURVE,
            region,
            (curve.upper_end_level, curve.lower_end_level),
            [cobb, ferguson],
            [
                (codes.CONVEX_SIDE, codes.SIDES[curve.side]),
                (codes.APEX, codes.VERTEBRAE[curve.apex_level]),
                (codes.UPPER_END, codes.VERTEBRAE[curve.upper_end_level]),
                (codes.LOWER_END, codes.VERTEBRAE[curve.lower_end_level]),
            ],
            prefix=_COBB_TOOL,
        )
        # after the group is made, since highdicom allows coordinates of the group only
        cobb[0].ContentSequence.append(sr.CoordinatesForMeasurement(**region))
        # the viewer's label of the measurement, which looks there like one that a person drew
        group[0].ContentSequence.append(_text(codes.COMMENT, f"edge-spine {name}: {NOTICE}"))
        return group

    def _cobb_points(self, curve: LevelledCurve) -> NDArray[np.float64]:
        """Return the ends of the two end lines, (4, 2), joined along the concave side beside the spine."""
        spine = self._result.spine
        upper, lower = (line.ends(spine, curve, (0.0, 0.0)) for line in end_lines(self._result, curve))
        points = np.concatenate([upper[::-1], lower])
        return stored_points(self._result, points[:, 0], points[:, 2])

    def _sagittal_curve(self, name: str, key: str, levels: tuple[str, str]) -> Group:
        region = self._region(self._centreline_points(levels))
        return self._group(name, codes.SAGITTAL_CURVE, region, levels, [self._number(key)])

    def _centreline(self) -> Group:
        measurements = [self._number(name) for name in _CENTRELINE if self._numbers[name] is not None]
        if (band := self._result.band_90) is not None:
            for code, half_mm in ((codes.BAND_CORONAL, band.coronal), (codes.BAND_SAGITTAL, band.sagittal)):
                mean_mm = round(float(half_mm.mean()), 3)
                measurements.append(sr.Measurement(name=code, value=mean_mm, unit=codes.MILLIMETRE))
        region = self._region(self._centreline_points(("T1", "L5")))
        return self._group("centreline T1-L5", codes.SPINE, region, (), measurements, purpose=codes.CENTERLINE)

    def _number(self, name: str) -> sr.Measurement:
        quantity = QUANTITIES[name]
        error = None if quantity.error is None else self._numbers[quantity.error]
        return _measurement(quantity, self._numbers[name], codes.INFERRED if quantity.inferred else None, error)

    def _centreline_points(self, levels: tuple[str, str]) -> NDArray[np.float64]:
        """Return the centreline on the stored image from the top of one level to the bottom of another."""
        centre = self._result.spine.centreline
        top, bottom = self._result.levels.edges(levels[0])[0], self._result.levels.edges(levels[1])[1]
        first, last = (int(np.abs(centre[:, 2] - z).argmin()) for z in (top, bottom))
        part = centre[first : last + 1]
        return stored_points(self._result, part[:, 0], part[:, 2])

    def _region(self, points: NDArray[np.float64]) -> dict[str, Any]:
        source = self._identity.source
        image = sr.SourceImageForRegion(source.SOPClassUID, source.SOPInstanceUID)
        return {"graphic_type": "POLYLINE", "graphic_data": points, "source_image": image}

    def _group(
        self,
        name: str,
        finding: Code,
        region: dict[str, Any],
        levels: Sequence[str],
        measurements: Sequence[sr.Measurement],
        evaluations: Sequence[tuple[Code, Code]] = (),
        purpose: Code | None = None,
        prefix: str = "",
    ) -> Group:
        model = self._result.model
        sites = [codes.VERTEBRAE[level] for level in levels] or [codes.SPINE]
        return Group(
            tracking_identifier=sr.TrackingIdentifier(
                uid=self._identity.uid("tracking", name), identifier=f"{prefix}edge-spine {name}"
            ),
            referenced_region=sr.ImageRegion(**region),
            finding_type=finding,
            algorithm_id=sr.AlgorithmIdentification(
                name="edge-spine",
                version=__version__,
                # one text, since some readers keep the first only
                parameters=[
                    f"model {model['name']} {model['version']}, SHA-256 {model['sha256']}, "
                    f"engine {model['engine']}, precision {model['precision']}"
                ],
            ),
            finding_sites=[sr.FindingSite(site) for site in dict.fromkeys(sites)],
            measurements=measurements,
            qualitative_evaluations=[sr.QualitativeEvaluation(*pair) for pair in evaluations],
            geometric_purpose=purpose,
        )


def _measurement(quantity: Quantity, value: float, method: Code | None, error: float | None) -> sr.Measurement:
    """Return a measurement, with the half-width of its 90 % interval as its uncertainty (TID 310) where it has one."""
    interval, unit = None, codes.UNITS[quantity.unit]
    if error is not None:
        interval = sr.MeasurementProperties(upper_measurement_uncertainty=error, lower_measurement_uncertainty=error)
        for item in interval:
            # highdicom gives it no unit
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence = [coded_item(unit)]
    return sr.Measurement(*(Code(*quantity.code), value, unit), method=method, properties=interval)


def _observer(result: SpineResult) -> sr.ObserverContext:
    attributes = sr.DeviceObserverIdentifyingAttributes(
        uid=device_uid(result),
        name="edge-spine",
        manufacturer_name=MANUFACTURER,
        model_name=f"{result.model['name']} {result.model['version']}",
        serial_number=result.model["sha256"],
    )
    return sr.ObserverContext(
        observer_type=sr.CodedConcept.from_code(codes.DEVICE), observer_identifying_attributes=attributes
    )


def _evaluations(result: SpineResult) -> sr.ContainerContentItem:
    """Return the statements on the whole result (TID 1500, Qualitative Evaluations)."""
    container = sr.ContainerContentItem(name=codes.QUALITATIVE_EVALUATIONS, relationship_type=_CONTAINS)
    worth, found = side_view_worth(result), result.levels.z_error is not None
    accepted = codes.YES if result.quality.accepted else codes.NO
    container.ContentSequence = sr.ContentSequence(
        [
            _text(codes.COMMENT, CAUTION),
            _text(codes.COMMENT, _POSTURE.format(levels=_LEVELS_FOUND if found else _LEVELS_AVERAGE)),
            *([_text(codes.COMMENT, " ".join(worth))] if worth else []),
            sr.CodeContentItem(name=codes.ACCEPTED, value=accepted, relationship_type=_CONTAINS),
            *(_text(codes.QUALITY_FLAG, f"{flag}: {in_words(flag)}") for flag in result.quality.flags),
        ]
    )
    return container


def _centreline_3d(result: SpineResult, identity: Identity) -> sr.ContainerContentItem:
    """Return the 3D curve in a container of its own.

    A group of TID 1410 has one region only, and some viewers show nothing where a group lacks a 2D region.
    """
    container = sr.ContainerContentItem(name=codes.CENTRELINE_3D, relationship_type=_CONTAINS)
    curve = sr.Scoord3DContentItem(
        name=codes.CENTERLINE,
        graphic_type="POLYLINE",
        graphic_data=result.spine.centreline.round(3),
        frame_of_reference_uid=identity.uid("frame-of-reference"),
        relationship_type=_CONTAINS,
    )
    container.ContentSequence = sr.ContentSequence([_text(codes.COMMENT, _FRAME), curve])
    return container


def _text(name: Code, value: str) -> sr.ContentItem:
    return sr.TextContentItem(name=name, value=value, relationship_type=_CONTAINS)


def _source_for_highdicom(identity: Identity) -> Dataset:
    """Return the source without patient attributes, which highdicom's warnings would quote; `finished` sets them.

    OutputError where the SOP class is unknown to highdicom.
    """
    source = Dataset()
    source.update(identity.source)
    for keyword in REQUIRED:
        setattr(source, keyword, "")
    # Other values require attributes of radiography, which DXA images lack.
    source.Modality = "OT"
    try:
        sr.ImageLibrary([source])
    except (KeyError, ValueError):
        raise OutputError(
            "a DICOM report needs a scan whose SOPClassUID is that of a standard image; send it as CR, DX or SC"
        ) from None
    return source
