"""Put the range of a population's side views into a bundle: `python -m export.training.population --model BUNDLE`.

The range in which 90 % of the training subjects have the sagittal centre of each row, relative to the mean of their
centreline, in crop pixels. The preview shows it behind the inferred side view.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from edge_spine.bundle import MANIFEST, load_bundle, manifest_bytes, parse_manifest
from edge_spine.errors import EdgeSpineError
from edge_spine.outputs.atomic import write_files
from edge_spine.population import SCHEMA, SHARE, UNIT
from export.training.phantom import make_subject


def population_range(count: int) -> dict[str, Any]:
    """Return the range of the training subjects of seeds 0 to `count` - 1, as a manifest holds it."""
    places = []
    for seed in tqdm(range(count), unit="subject", disable=None):
        subject = make_subject(seed)
        centre = subject.curves_at(subject.row_heights_mm)[:, 4] / subject.model_pixel_mm
        places.append(centre - centre.mean())
    tail = 50 * (1 - SHARE)
    low, high = np.percentile(places, (tail, 100 - tail), axis=0)
    return {
        "schema": SCHEMA,
        "share": SHARE,
        "unit": UNIT,
        "low": low.round(3).tolist(),
        "high": high.round(3).tolist(),
        "count": count,
        "described": f"synthetic phantoms, seeds 0 to {count - 1}, each row by itself; not patients",
    }


def main(argv: list[str] | None = None) -> int:
    """Add the range from the command line.

    Returns
    -------
    int
        0 when the bundle has it, 1 where the bundle cannot be loaded or written.
    """
    parser = argparse.ArgumentParser(prog="python -m export.training.population", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, metavar="BUNDLE", help="bundle folder to add it to")
    parser.add_argument("--count", type=int, default=4000, help="subjects (default 4000)")
    options = parser.parse_args(argv)
    if options.count < 100:
        parser.error("--count must be at least 100")
    try:
        bundle = load_bundle(options.model)
        content = manifest_bytes({**bundle.manifest, "population": population_range(options.count)})
        parse_manifest(content)
        write_files(options.model, {MANIFEST: content})
    except (EdgeSpineError, OSError) as error:
        print(f"population: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
