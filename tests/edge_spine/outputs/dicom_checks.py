"""What every DICOM object is checked with: dicom3tools' validator, DCMTK's reader of reports, and OHIF's demands."""

from __future__ import annotations

import io
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

import edge_spine
from edge_spine.outputs.registry import DICOM_OBJECTS, FORMATS
from edge_spine.result import SpineResult
from tests.edge_spine.fake_result import fake_bands, fake_result

DEMO_SCAN = Path(edge_spine.__file__).parent / "data" / "synthetic_whole_body.dcm"
KINDS = tuple(DICOM_OBJECTS)
# A page with nothing on it; of odd length on purpose.
PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
)
assert len(PDF) % 2


def render(kind: str, result: SpineResult, pdf: bytes = PDF) -> bytes:
    """Render an object of any kind, with `pdf` in place of the report."""
    with patch("edge_spine.outputs.report_pdf.render", return_value=pdf):
        return FORMATS[kind].render(result)


def read(data: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(data))


def header(**attributes: Any) -> Dataset:
    """Return the header of a FAKE source image as it comes out of a file; an attribute of None is left out."""
    values: dict[str, Any] = {
        "SOPClassUID": ComputedRadiographyImageStorage,
        "SOPInstanceUID": "1.2.3.4",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.5",
        "Modality": "CR",
        "Manufacturer": "GE Healthcare",
        "ManufacturerModelName": "Lunar iDXA",
        "PatientName": "Doe^Jane",
        "PatientID": "4711",
        "PatientBirthDate": "19600229",
        "PatientSex": "F",
        "StudyDate": "20200102",
        "StudyTime": "030405",
        "StudyID": "9",
        "AccessionNumber": "A1",
        "ReferringPhysicianName": "House^Gregory",
    } | attributes
    dataset = Dataset()
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return stored(dataset)


def stored(dataset: Dataset) -> Dataset:
    """Return a header after a way through a file, with its values still undecoded."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # The file says so even where the data set does not.
    dataset.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    stream.seek(0)
    return pydicom.dcmread(stream, stop_before_pixels=True)


def fake_dicom_result(given: Dataset | None = None, **changes: Any) -> SpineResult:
    """A FAKE result of a FAKE DICOM scan."""
    changes.setdefault("band_90", fake_bands())
    return fake_result(header=header() if given is None else given, **changes)


@cache
def usual(kind: str) -> bytes:
    """Render an object of the usual FAKE result, once."""
    return render(kind, fake_dicom_result())


def program(name: str) -> str:
    """Find a program of the system; a package from PyPI may shadow it in the environment."""
    for folder in ("/usr/bin", "/usr/local/bin"):
        if Path(folder, name).is_file():
            return str(Path(folder, name))
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"the program {name} is not installed (Debian: dicom3tools, dcmtk)")
    return found


def assert_valid(data: bytes, folder: Path) -> None:
    """Check an object with dciodvfy: it must know the kind of object and find no error."""
    file = folder / "object.dcm"
    file.write_bytes(data)
    ended = subprocess.run([program("dciodvfy"), str(file)], capture_output=True, text=True, errors="replace")
    said = (ended.stdout + ended.stderr).splitlines()
    assert [line for line in said if line.startswith("Error") or "unrecognized SOP Class" in line] == []
    assert any(line in ("Comprehensive3DSR", "SCImage", "EncapsulatedSTL", "EncapsulatedPDF") for line in said), said


def ohif_measurements(report: Dataset) -> list[dict[str, Any]]:
    """Read a report as OHIF does, which shows nothing at all where one of these is not as it expects."""
    assert report.ConceptNameCodeSequence[0].CodeValue == "126000"
    by_code = {item.ConceptNameCodeSequence[0].CodeValue: item for item in reversed(report.ContentSequence)}
    library = by_code["111028"]
    groups = [item for item in library.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "126200"]
    images = [item for item in groups[0].ContentSequence if "ReferencedSOPSequence" in item]
    assert images
    measurements = []
    for group in by_code["126010"].ContentSequence:
        assert group.ConceptNameCodeSequence[0].CodeValue == "125007"
        items = list(group.ContentSequence)
        # The first of each is taken, whatever it is called; a group with a SCOORD3D alone stops some releases.
        region = next(item for item in items if item.ValueType == "SCOORD")
        assert not any(item.ValueType == "SCOORD3D" for item in items)
        uid = next(item for item in items if item.ValueType == "UIDREF")
        assert uid.ConceptNameCodeSequence[0].CodeValue == "112040"
        label = next(item for item in items if item.ConceptNameCodeSequence[0].CodeValue == "112039")
        assert len(region.ContentSequence) == 1
        image = region.ContentSequence[0].ReferencedSOPSequence[0]
        numbers = {
            item.ConceptNameCodeSequence[0].CodeMeaning: (
                float(item.MeasuredValueSequence[0].NumericValue),
                item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue,
            )
            for item in items
            if item.ValueType == "NUM"
        }
        assert numbers
        measurements.append(
            {
                "label": label.TextValue,
                "uid": uid.UID,
                "type": region.GraphicType,
                "points": points(region),
                "image": image.ReferencedSOPInstanceUID,
                "numbers": numbers,
            }
        )
    return measurements


def points(region: Dataset, dimensions: int = 2) -> NDArray[np.float64]:
    return np.array(region.GraphicData, dtype=np.float64).reshape(-1, dimensions)
