"""Pictures on a page of vectors."""

from __future__ import annotations

import numpy as np

from edge_spine.outputs.report.vector import cut_out


def test_a_picture_cut_from_black_keeps_its_colours_and_soft_edges() -> None:
    share = np.clip(9.5 - np.abs(np.arange(40) - 19.3), 0, 1)
    picture = np.rint(np.tile(share[:, np.newaxis] * (40, 120, 200), (30, 1, 1))).astype(np.uint8)
    freed = cut_out(picture)
    np.testing.assert_allclose(freed[15, :, 3], 255 * share, atol=4)
    seen = freed[15, :, 3] > 60
    np.testing.assert_allclose(freed[15, seen, :3], np.tile((40, 120, 200), (int(seen.sum()), 1)), atol=6)
