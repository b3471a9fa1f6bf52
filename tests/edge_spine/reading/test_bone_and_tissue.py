"""Bone and soft-tissue image are told apart by what they show: numbers and descriptions may be exchanged or absent."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from edge_spine.bundle import load_bundle
from edge_spine.errors import Refusal
from edge_spine.preprocessing import prepare
from edge_spine.preprocessing.locator import Localiser
from edge_spine.reading.read import scan_from_bytes


def edited(path: Path, edit: Callable[[Dataset], None]) -> bytes:
    dataset = pydicom.dcmread(path)
    edit(dataset)
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def without_numbers(dataset: Dataset) -> None:
    for keyword in ("InstanceNumber", "SeriesNumber", "SeriesDescription", "ImageType", "ImageComments"):
        if keyword in dataset:
            delattr(dataset, keyword)


@pytest.mark.parametrize("number", [11, 12, None])
def test_content_decides(real_bone: Path, real_tissue: Path, number: int | None) -> None:
    def edit(dataset: Dataset) -> None:
        without_numbers(dataset)
        if number is not None:
            dataset.InstanceNumber = number

    bundle = load_bundle(None)
    localiser = Localiser(bundle.read(bundle.file_with_role("localiser")))
    prepare(scan_from_bytes(edited(real_bone, edit), "11.dcm"), localiser)
    with pytest.raises(Refusal) as caught:
        prepare(scan_from_bytes(edited(real_tissue, edit), "12.dcm"), localiser)
    assert caught.value.code == "soft-tissue-image"
