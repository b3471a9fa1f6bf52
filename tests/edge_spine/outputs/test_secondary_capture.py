from __future__ import annotations

import numpy as np
import pytest

from edge_spine.outputs import preview_png
from tests.edge_spine.outputs.dicom_checks import fake_dicom_result, read, render

pytest.importorskip("highdicom", reason="pip install '.[dicom]'")


def test_it_shows_the_preview_without_what_names_or_times() -> None:
    result = fake_dicom_result(source="DOE_JANE.dcm").with_timing(infer=12.0)
    canvas, full = preview_png.draw(result, about_this_run=False), preview_png.draw(result)
    image = read(render("sc", result))
    np.testing.assert_array_equal(image.pixel_array, canvas.image[..., ::-1])
    texts, all_texts = [text for text, _ in canvas.texts], [text for text, _ in full.texts]
    assert "DOE_JANE.dcm" in all_texts and any("computed in" in text for text in all_texts)
    assert not any("DOE" in text or "computed in" in text for text in texts)
    assert "Research use only. Not for diagnosis." in texts
    # Apart from the head and the foot of the page, both are the same drawing.
    np.testing.assert_array_equal(canvas.image[60:950], full.image[60:950])


def test_it_says_what_it_is_and_where_it_comes_from() -> None:
    image = read(render("sc", fake_dicom_result()))
    assert image.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert (image.Modality, image.ConversionType) == ("OT", "WSD")
    assert list(image.ImageType) == ["DERIVED", "SECONDARY"]
    assert (image.PhotometricInterpretation, image.Rows, image.Columns) == ("RGB", 1000, 1600)
    assert image.BurnedInAnnotation == "NO"
    assert "CAUTION: Not for Diagnostic Use, for research use only." in image.DerivationDescription
    (source,) = image.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == "1.2.3.4"
    assert "PixelSpacing" not in image
    for keyword in ("DateOfSecondaryCapture", "TimeOfSecondaryCapture", "InstanceCreationDate", "InstanceCreationTime"):
        assert keyword not in image
