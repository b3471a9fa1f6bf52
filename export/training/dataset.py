"""Phantoms and people cached on disk as shards; training draws augmented samples from them.

`python -m export.training.dataset --count 10000 --seed 0 --out cache` renders phantoms with several processes; shards
that are there already are kept, so an interrupted run goes on where it stopped. With `--people DIR` the spines are real
bone from packs in a folder (`export.training.people`), and each shard says in `packs` whose bone each sample has.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge_spine.errors import UsageError
from edge_spine.files import beside
from edge_spine.network import CROP_SIZE
from edge_spine.preprocessing.body import Body, find_body
from edge_spine.preprocessing.crop import resample
from edge_spine.preprocessing.intensity import normalise
from edge_spine.preprocessing.locator import thumbnail
from edge_spine.processors import usable_cores
from edge_spine.vertebrae import LEVELS
from export.training.people import PersonScan, make_person, pack_names
from export.training.phantoms.phantom import Phantom, make_phantom
from export.training.processes import ordered_map

# training takes the seeds below these, so that nothing is ever judged on what it learnt from
EVALUATION_SEED = 10_000_000
CALIBRATION_SEED = 20_000_000
REFERENCE_SEED = 30_000_000
BAND_SEED = 35_000_000

MARGIN = 24
WIDE = CROP_SIZE + 2 * MARGIN
SHARD = 250
FIELDS = ("crop", "curves", "thumbnail", "landmarks", "levels")
_CENTRE = (CROP_SIZE - 1) / 2


@dataclass(frozen=True)
class Sample:
    """What training keeps of one scan.

    Attributes
    ----------
    crop : (272, 272) uint8 array
        The true crop with a margin of 24 pixels, normalised as in the runtime, times 255.
    curves : (272, 6) float32 array
        The six curves at each row of `crop`: coronal as columns of the true crop, sagittal as crop pixels from the
        T1-L5 middle, before the mean is taken out.
    thumbnail : (288, 112) uint8 array
        The localiser's input times 255.
    landmarks : (3, 2) float32 array
        Crop centre, T1 top and L5 bottom, (row, column) in `thumbnail`.
    levels : (19, 2) float32 array
        Body centres of T1 to L5, the top of T1 and the bottom of L5, (row, column) in the true crop; NaN where unknown.
    """

    crop: NDArray[np.uint8]
    curves: NDArray[np.float32]
    thumbnail: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    levels: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SpineInScan:
    """The truth about a spine in the frame of a scan.

    Attributes
    ----------
    model_pixel_mm : float
        A canonical pixel.
    centre_px : (row, column)
        Centre of the true crop, scan pixels: half way from the top of T1 to the bottom of L5, and half way between
        the outermost borders of the 209 rows.
    ends_px : two (row, column)
        Top of T1 and bottom of L5, scan pixels.
    curves_at : callable
        Turns heights z (K,) into the six curves (K, 6), mm: z and x from the centre of the scan's top-left pixel,
        y from any origin.
    centres_px : (17, 2) array, optional
        Body centres of T1 to L5, (row, column) in scan pixels, where they are known.
    """

    model_pixel_mm: float
    centre_px: tuple[float, float]
    ends_px: list[tuple[float, float]]
    curves_at: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    centres_px: NDArray[np.float64] | None = None


def make_sample(phantom: Phantom) -> Sample:
    """Cut a phantom's scan where the truth says, with the runtime's own steps."""
    body = find_body(phantom.bone.astype(np.float32))
    top, left = phantom.framing.top_left_mm
    first_mm = np.array([left, left, left, 0.0, 0.0, 0.0])
    spine = SpineInScan(
        phantom.model_pixel_mm,
        phantom.crop_origin_px(-_CENTRE),
        [_to_pixel(phantom, end) for end in phantom.trunk_ends],
        lambda z: phantom.curves_at(z + top) - first_mm,
        np.array([_to_pixel(phantom, centre) for centre in phantom.body_centres]),
    )
    return cut_sample(body, phantom.framing.pixel_mm, spine)


def cut_sample(body: Body, spacing_mm: tuple[float, float], spine: SpineInScan) -> Sample:
    """Cut a scan where the truth about its spine says, with the runtime's own steps."""
    shown = normalise(body.pixels, body.mask)
    pixel, half = spine.model_pixel_mm, MARGIN + _CENTRE
    row_mm, column_mm = spacing_mm
    row, column = spine.centre_px
    origin = (row - half * pixel / row_mm, column - half * pixel / column_mm)
    crop = resample(shown, spacing_mm, pixel, origin, WIDE)
    curves = spine.curves_at(-origin[0] * row_mm - np.arange(WIDE) * pixel)
    curves[:, :3] -= column * column_mm - _CENTRE * pixel
    small, start, step = thumbnail(shown, spacing_mm)
    landmarks = [[(r - start[0]) / step[0], (c - start[1]) / step[1]] for r, c in (spine.centre_px, *spine.ends_px)]
    centres = np.full((len(LEVELS), 2), np.nan) if spine.centres_px is None else spine.centres_px
    points = np.concatenate([centres, spine.ends_px]) - spine.centre_px
    return Sample(
        crop=np.round(crop * 255).astype(np.uint8),
        curves=(curves / pixel).astype(np.float32),
        thumbnail=np.round(small * 255).astype(np.uint8),
        landmarks=np.array(landmarks, dtype=np.float32),
        levels=(points * spacing_mm / pixel + _CENTRE).astype(np.float32),
    )


def _to_pixel(phantom: Phantom, point: NDArray[np.float64]) -> tuple[float, float]:
    top, left = phantom.framing.top_left_mm
    row_mm, column_mm = phantom.framing.pixel_mm
    return (top - point[2]) / row_mm, (point[0] - left) / column_mm


def calibration_crops(count: int, seed: int = CALIBRATION_SEED) -> NDArray[np.uint8]:
    """Render `count` phantoms from `seed` on and return their true crops, (count, 224, 224), times 255."""
    seeds = tqdm(range(seed, seed + count), desc="phantoms", disable=None)
    crops = [make_sample(make_phantom(subject)).crop for subject in seeds]
    return np.stack(crops)[:, MARGIN:-MARGIN, MARGIN:-MARGIN]


def target_of(curves: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn curves at the 209 rows, crop pixels, into the network's target (209, 6)."""
    target = curves.copy()
    target[:, 3:] += CROP_SIZE / 2 - target[:, 4].mean()
    return (target / CROP_SIZE).astype(np.float32)


def shard_path(folder: Path, first: int) -> Path:
    """Name of the shard whose first seed is `first`."""
    return folder / f"shard_{first:08d}.npz"


# field of shards of pairs: the size of a canonical pixel, mm
PIXEL = "model_pixel_mm"


def load_shards(
    folder: Path, skip: frozenset[str] = frozenset(), fields: tuple[str, ...] = ("crop", "curves")
) -> dict[str, dict[str, NDArray[Any]]]:
    """Load `fields` of every whole shard of a folder that is not in `skip`, by file name."""
    shards = {}
    for path in sorted(folder.glob("shard_????????.npz")):
        if path.name not in skip:
            with np.load(path, allow_pickle=False) as stored:
                shards[path.name] = {key: stored[key] for key in fields}
    return shards


def write_shard(path: Path, samples: list[Sample], **more: NDArray[Any]) -> None:
    """Write samples, and arrays of as many rows beside them, as one whole file or none."""
    fields = {name: np.stack([getattr(sample, name) for sample in samples]) for name in FIELDS}
    with beside(path) as unfinished, unfinished.open("wb") as stream:
        np.savez(stream, **fields, **more)


# what makes the phantom or person of a seed
Maker = Callable[[int], Phantom]


def _render_shard(job: tuple[Path, int, int, Maker]) -> int:
    path, first, count, make = job
    cv2.setNumThreads(1)
    samples, packs = [], []
    for seed in range(first, first + count):
        scan = make(seed)
        samples.append(make_sample(scan))
        if isinstance(scan, PersonScan):
            packs.append("+".join(scan.packs))
    write_shard(path, samples, **({"packs": np.array(packs)} if packs else {}))
    return count


def render(folder: Path, count: int, seed: int, workers: int, make: Maker = make_phantom) -> None:
    """Render what `make` makes of `seed` to `seed + count` into shards, skipping those that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        (shard_path(folder, first), first, min(SHARD, seed + count - first), make)
        for first in range(seed, seed + count, SHARD)
        if not shard_path(folder, first).exists()
    ]
    bar = tqdm(total=sum(job[2] for job in jobs), unit="scan", disable=None)
    with ordered_map(workers) as mapped:
        for done in mapped(_render_shard, jobs):
            bar.update(done)
    bar.close()


def main(argv: list[str] | None = None) -> int:
    """Render a cache of phantoms or people."""
    parser = argparse.ArgumentParser(prog="python -m export.training.dataset", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--people", type=Path, metavar="DIR", help="folder with packs of bone: render people")
    parser.add_argument("--only", metavar="NAME,...", help="with --people: bone from these packs (default: all)")
    parser.add_argument("--without", metavar="NAME,...", help="with --people: and from none of these")
    parser.add_argument(
        "--patchwork", type=float, default=0.0, help="with --people: share of people made of vertebrae of many packs"
    )
    parser.add_argument(
        "--variants", type=float, default=0.0, help="share of unusual numbers of ribs, and of transitional vertebrae"
    )
    parser.add_argument("--workers", type=int, default=usable_cores())
    parser.add_argument("--device", default="cpu", help="cpu (NumPy, default) or cuda (torch)")
    options = parser.parse_args(argv)
    make: Maker = partial(make_phantom, device=options.device, variants=options.variants)
    if options.people is not None:
        try:
            names = choose_packs(options.people, options.only, options.without)
        except UsageError as error:
            parser.error(str(error))
        make = partial(
            make_person,
            options.people,
            names,
            device=options.device,
            variants=options.variants,
            patchwork=options.patchwork,
        )
    render(options.out, options.count, options.seed, options.workers, make)
    return 0


def makers_of(people: Path | None) -> dict[str, Maker]:
    """Return the maker of phantoms and, with a folder of packs, that of people from all of them.

    Raises
    ------
    UsageError
        The folder has no packs.
    """
    makers: dict[str, Maker] = {"phantoms": make_phantom}
    if people is not None:
        makers["people"] = partial(make_person, people, choose_packs(people, None, None))
    return makers


def choose_packs(folder: Path, only: str | None, without: str | None) -> tuple[str, ...]:
    """Names of the packs in a folder that bone may come from, of lists with commas.

    Raises
    ------
    UsageError
        A name is unknown, or none is left.
    """
    known = pack_names(folder)
    wanted = known if only is None else tuple(only.split(","))
    excluded = () if without is None else tuple(without.split(","))
    for name in (*wanted, *excluded):
        if name not in known:
            raise UsageError(f"no pack {name!r} in {folder}; there are {', '.join(known)}")
    left = tuple(name for name in wanted if name not in excluded)
    if not left:
        raise UsageError("no pack of bone is left")
    return left


if __name__ == "__main__":
    raise SystemExit(main())
