"""What a search leaves out is counted and named."""

from __future__ import annotations

from edge_spine.reading.left_out import HIDDEN, NO_IMAGE, LeftOut


def test_counts_and_first_names_in_one_line() -> None:
    left_out = LeftOut()
    assert not left_out
    for name in ("a.txt", "b.txt", "c\n.txt", "d.txt"):
        left_out.add(NO_IMAGE, name)
    left_out.add(HIDDEN, ".x")
    assert len(left_out) == 5
    assert str(left_out) == "4 no image (a.txt, b.txt, c?.txt, ...); 1 hidden (.x)"
