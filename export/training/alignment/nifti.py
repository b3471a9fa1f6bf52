"""Read an MRI and the mask of its spine from NIfTI into the patient frame; nothing is guessed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.training.alignment.volume import PairSkipped, Volume

# Direction in which an axis runs, in NIfTI's own frame (right, front, head).
_LETTERS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
_MOST_VOXELS = 300_000_000
_PITCH_MM = (0.2, 12.0)


def as_orientation(text: str) -> str:
    """Return an orientation in capitals: where the three axes of the voxels run to, such as LPS.

    Raises
    ------
    ValueError
        The letters do not name three axes.
    """
    letters = text.upper()
    if sorted(_LETTERS[letter][0] for letter in letters if letter in _LETTERS) != [0, 1, 2] or len(letters) != 3:
        raise ValueError(f"{text!r} is no orientation; expected one letter of each of LR, PA and SI, such as LPS")
    return letters


def read_mri(volume: Path, mask: Path, orientation: str | None = None) -> tuple[Volume, Volume]:
    """Read an MRI and its spine mask from NIfTI.

    The affine gives the directions of the axes; an oblique volume is resampled along the patient's axes, and a mask
    with another grid onto that of the volume.

    Parameters
    ----------
    volume, mask : Path
        Files. A mask has integers, spine above 0, or probabilities from 0 to 1, spine from a half on.
    orientation : str, optional
        Where the axes run to in files that state no orientation, such as "LPS".

    Returns
    -------
    volume, mask : Volume
        On one grid; the mask is 0 or 1, float32.

    Raises
    ------
    PairSkipped
        "mri-unreadable", "mri-mask-unreadable"; "mri-orientation", "mri-mask-orientation" if a file states none, two
        that differ, or an impossible one; "mri-mask-values"; "mri-mask-empty".
    """
    # Part of the extra `export`; training on phantoms does not need it.
    from nibabel.processing import resample_from_to, resample_to_output

    (image, stated), (drawn, also) = _load(volume, "mri", orientation), _load(mask, "mri-mask", orientation)
    if stated != also:
        raise PairSkipped("mri-orientation", "only one of MRI and mask states an orientation, so they may lie apart")
    drawn = _spine_share(drawn)
    try:
        axes = image.affine[:3, :3]
        pitch = np.linalg.norm(axes, axis=0)
        if np.sort(np.abs(axes / pitch), axis=0)[1].max() > 1e-3:
            image = resample_to_output(image, tuple(float(p) for p in pitch), order=1)
        if drawn.shape != image.shape or not np.allclose(drawn.affine, image.affine, atol=1e-3):
            drawn = resample_from_to(drawn, image, order=1)
    except (ValueError, MemoryError) as error:
        raise PairSkipped("mri-unreadable", f"the grids cannot be resampled ({type(error).__name__})") from None
    spine = _in_patient_frame(drawn)
    inside = (spine.values >= 0.5).astype(np.float32)
    if not inside.any():
        raise PairSkipped("mri-mask-empty", "the MRI's spine mask lies outside the MRI")
    return _in_patient_frame(image), replace(spine, values=inside)


def _load(path: Path, what: str, orientation: str | None) -> tuple[Any, bool]:
    """Return an image of float32 voxels, axes next to the patient's, and whether its file states an orientation."""
    import nibabel

    try:
        image = nibabel.load(path)
        if not isinstance(image, nibabel.nifti1.Nifti1Pair):
            raise nibabel.filebasedimages.ImageFileError("not NIfTI")
        image = nibabel.funcs.squeeze_image(image)
        shape, kind = image.shape, image.get_data_dtype()
        if len(shape) != 3 or min(shape) < 2 or np.prod(shape, dtype=float) > _MOST_VOXELS or kind.kind not in "iufb":
            raise PairSkipped(
                f"{what}-unreadable", f"expected a 3D volume of numbers, found shape {shape} of {kind.name}"
            )
        affine, stated = _affine(image, what, orientation)
        values = np.asarray(image.dataobj, dtype=np.float32)
    except PairSkipped:
        raise
    except Exception as error:  # any: a damaged header or stream raises many types in nibabel, zlib and NumPy
        raise PairSkipped(f"{what}-unreadable", f"the file cannot be read as NIfTI ({type(error).__name__})") from None
    if not np.all(np.isfinite(values)):
        raise PairSkipped(f"{what}-unreadable", "expected finite numbers, found infinite ones or none")
    return nibabel.as_closest_canonical(nibabel.Nifti1Image(values, affine)), stated


def _affine(image: Any, what: str, orientation: str | None) -> tuple[NDArray[np.float64], bool]:
    """Return the affine that a file states, or the given one, after a look at whether it can be."""
    import nibabel

    stated = [
        matrix for matrix, code in (image.header.get_sform(coded=True), image.header.get_qform(coded=True)) if code
    ]
    known = bool(stated)
    if not known:
        if orientation is None:
            raise PairSkipped(
                f"{what}-orientation",
                "the file states no orientation (sform and qform are 0); where its voxels are known to run to the "
                "left, the back and the head, say --orientation LPS",
            )
        affine = np.zeros((4, 4))
        affine[3, 3] = 1
        for column, (letter, pitch) in enumerate(zip(orientation, image.header.get_zooms()[:3], strict=True)):
            axis, sign = _LETTERS[letter]
            affine[axis, column] = sign * pitch
        stated = [affine]
    for affine in stated:
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        upright = abs(np.linalg.det(affine[:3, :3])) > 0.9 * np.prod(lengths)
        if not (
            np.isfinite(affine).all() and _PITCH_MM[0] <= lengths.min() <= lengths.max() <= _PITCH_MM[1] and upright
        ):
            raise PairSkipped(
                f"{what}-orientation",
                f"the stated affine is no grid of voxels of {_PITCH_MM[0]} to {_PITCH_MM[1]} mm at right angles",
            )
    if len({nibabel.aff2axcodes(affine) for affine in stated}) > 1:
        raise PairSkipped(f"{what}-orientation", "sform and qform state different directions")
    return np.asarray(stated[0], dtype=np.float64), known


def _spine_share(drawn: Any) -> Any:
    """Return a mask as shares of spine, 0 to 1, from labels or probabilities."""
    import nibabel

    values = np.asarray(drawn.dataobj)
    if np.array_equal(values, np.round(values)) and values.min() >= 0:
        shares = values > 0
    elif values.min() >= 0 and values.max() <= 1:
        shares = values >= 0.5
    else:
        raise PairSkipped(
            "mri-mask-values",
            f"the mask has values from {values.min():.3g} to {values.max():.3g}; whole numbers (spine above 0) or "
            "probabilities from 0 to 1 are expected",
        )
    if not shares.any():
        raise PairSkipped("mri-mask-empty", "the MRI's spine mask is empty")
    return nibabel.Nifti1Image(shares.astype(np.float32), drawn.affine)


def _in_patient_frame(image: Any) -> Volume:
    values = np.asarray(image.dataobj, dtype=np.float32)[::-1, ::-1]
    x, y, z = (float(pitch) for pitch in np.diag(image.affine)[:3])
    right, front, low = (float(place) for place in image.affine[:3, 3])
    # NIfTI's x and y increase to the right and to the front; both are reversed here.
    first = (-(right + (values.shape[0] - 1) * x), -(front + (values.shape[1] - 1) * y), low)
    return Volume(np.ascontiguousarray(values), (x, y, z), first)
