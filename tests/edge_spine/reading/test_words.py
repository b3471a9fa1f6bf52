"""The tables of words do not contradict each other."""

from __future__ import annotations

from edge_spine.reading.words import NO_REGION, OTHER_MODALITIES, OTHER_PARTS, OTHER_REGION, WHOLE_BODY


def test_a_word_of_the_tables_is_on_one_side_only() -> None:
    for part in OTHER_PARTS:
        assert not WHOLE_BODY.search(part), part
    assert not OTHER_MODALITIES & {"CR", "DX", "RG", "OT", "SC", "BMD"}


def test_a_part_that_is_left_out_takes_no_named_region_with_it() -> None:
    found = OTHER_REGION.search(NO_REGION.sub(" ", "Femur without hip, head excluded"))
    assert found is not None and found[1] == "Femur"
