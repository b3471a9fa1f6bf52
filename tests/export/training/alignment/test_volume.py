"""Features of a scan for its alignment."""

from __future__ import annotations

import numpy as np

from export.training.alignment.volume import scan_features


def _body() -> np.ndarray:
    """A trunk of 60 columns below a neck of 20, on a table of 120."""
    mask = np.zeros((100, 120), dtype=np.bool_)
    mask[5:30, 50:70] = True
    mask[30:95, 30:90] = True
    return mask


def test_a_line_across_the_display_is_no_body() -> None:
    plain = _body()
    shown = np.full(plain.shape, 0.5, dtype=np.float32)
    expected = scan_features(shown, plain, (2.4, 2.4)).pixels
    for row in (20, 60):
        lined = plain.copy()
        # as `find_body` leaves a line of one row
        lined[row - 1 : row + 2] = True
        np.testing.assert_array_equal(scan_features(shown, lined, (2.4, 2.4)).pixels, expected)


def test_a_body_as_wide_as_its_picture_stays() -> None:
    whole = np.zeros((100, 60), dtype=np.bool_)
    whole[10:90] = True
    shown = np.full(whole.shape, 0.5, dtype=np.float32)
    assert int((scan_features(shown, whole, (2.4, 2.4)).pixels > 0).any(axis=1).sum()) == 78
