"""Write the model card of a bundle, with the figures that were measured: `python -m export.card --model BUNDLE`.

`python -m export` gives each bundle a card without figures. This command writes it anew, once the bundle has been
evaluated: only the card and its hash in the manifest change.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_spine.bundle.load import CARD, MANIFEST, Bundle, load_bundle, manifest_bytes
from edge_spine.errors import EdgeSpineError, UsageError
from edge_spine.files import beside, write_files
from edge_spine.result import NOTICE
from export.exit_status import refused

# Labels of the figures in an evaluation; those of the mean sagittal curve follow in parentheses where it answers.
FIGURES = {
    "coronal_mae_mm": "coronal curves, MAE, mm",
    "sagittal_mae_mm": "sagittal curves, MAE, mm",
    "deviation3d_mm": "3D curve deviation, mm",
    "iou3d": "3D IoU",
    "cobb_mae_deg": "largest Cobb angle, curve against curve, MAE, degrees",
    "endplate_cobb_mae_deg": "largest Cobb angle against endplates, MAE, degrees",
    "endplate_cobb_bias_deg": "the same, bias, degrees",
    "level_named": "vertebrae named right, share",
    "coronal_coverage": "coronal centres inside their 90 % band, share",
    "sagittal_coverage": "sagittal centres inside their 90 % band, share",
}
_INTERVALS = ("interval_95_people", "interval_95")
_TEXT = """\
# Model card: {name} {version}

> {notice}

## Model

- Architecture: {architecture}.
- Input: one antero-posterior whole-body DXA bone image, cropped to the spine. Output: three coronal and three sagittal
  border curves, 209 rows each, millimetres.
- Made with {made_with}, from weights with the SHA-256 {weights}.
- Method: Bourigault, Jamaludin and Zisserman, MICCAI 2024, https://doi.org/10.1007/978-3-031-72086-4_1

## Intended use

Research on the shape of the spine of adults who lie in a whole-body DXA scanner: cohorts, methods, teaching. Not for
diagnosis, treatment, screening or follow-up of a patient; not for children, for regional scans, for other kinds of
images, or in place of a standing film.

## Training data

{training}

## Evaluation

{evaluation}

## Uncertainty

{bands}

## Limits

- The accuracy on patients is unknown: simulated people share the simulation's scanner, posture and soft tissue.
- The sagittal view is inferred, not seen: anatomy and shape are confounded in one view.
- Curves of a lying person measure less than on standing films, 16 to 20 % in severe scoliosis.
- Adults with 17 vertebrae from T1 to L5 only; a miscount may go unnoticed.

## Licence

Weights: {licence}. The sources and licences of what the model learnt from are named under "Training data".
"""


def render(manifest: Mapping[str, Any], evaluations: Mapping[str, Mapping[str, Any]], notes: Sequence[str] = ()) -> str:
    """Return a model card as Markdown.

    Parameters
    ----------
    manifest : Mapping
        Of the bundle.
    evaluations : Mapping
        Reports of `export.training.evaluate` as JSON, by what they were measured on.
    notes : sequence of str
        Sentences on other evaluations, such as one on a real scan.

    Raises
    ------
    UsageError
        A report is of another model, or not as `export.training.evaluate` writes it.
    """
    this = [manifest["name"], manifest["version"]]
    for subjects, report in evaluations.items():
        if not isinstance(report.get("count"), int):
            raise UsageError(f"the report on {subjects} holds no count; one of export.training.evaluate is expected")
        if (model := report.get("model")) is None:
            continue
        named = [model.get("name"), model.get("version")] if isinstance(model, Mapping) else [model]
        if named != this:
            raise UsageError(f"the report on {subjects} is of {' '.join(map(str, named))}, not {' '.join(this)}")
    lines = [_table(evaluations)] if evaluations else []
    lines += [f"- {note}" for note in notes]
    bands = manifest.get("bands", {}).get("calibrated_on")
    made_with = manifest.get("made_with", {})
    return _TEXT.format(
        **{key: manifest[key] for key in ("name", "version", "architecture", "training", "licence")},
        notice=NOTICE,
        made_with=", ".join(f"{name} {version}" for name, version in made_with.items()) or "unknown versions",
        weights=manifest.get("checkpoint", {}).get("sha256", "unknown"),
        evaluation="\n".join(lines) or "Not measured.",
        bands=f"90 % bands of the curves: calibrated on {bands}." if bands else "No calibrated bands.",
    )


def add_card(bundle: Bundle, text: str) -> None:
    """Write a bundle with another card, as a whole.

    Raises
    ------
    BundleError
        A file of the bundle is damaged.
    """
    content = text.encode("utf-8")
    files = {**bundle.manifest["files"], CARD: file_entry(content, "card", "text")}
    contents = {name: bundle.read(name) for name in files if name != CARD}
    with beside(bundle.folder) as folder:
        manifest = manifest_bytes({**bundle.manifest, "files": files})
        write_files(folder, {**contents, CARD: content, MANIFEST: manifest})
        load_bundle(folder)


def file_entry(content: bytes, role: str, precision: str) -> dict[str, Any]:
    """Return what the manifest says about a file."""
    digest = hashlib.sha256(content).hexdigest()
    return {"sha256": digest, "size": len(content), "role": role, "precision": precision}


def _table(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures as a table of Markdown, a column for each evaluation."""
    rows = [["", *evaluations], ["---"] * (1 + len(evaluations))]
    rows.append(["scans (refused)", *(f"{each['count']} ({each.get('refused', 0)})" for each in evaluations.values())])
    columns = [_column(subjects, report) for subjects, report in evaluations.items()]
    for label, *cells in zip(FIGURES.values(), *columns, strict=True):
        if any(cells):
            rows.append([label, *cells])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    head = "95 % intervals in brackets; in parentheses the mean sagittal curve, told the true coronal view."
    return f"{head}\n\n{table}\n"


def _column(subjects: str, report: Mapping[str, Any]) -> list[str]:
    """Return the cells of a report in the order of `FIGURES`."""
    cells = []
    for key in FIGURES:
        try:
            cells.append(_cell(report, key))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            raise UsageError(
                f"the report on {subjects} holds {key} in another form than export.training.evaluate writes it"
            ) from None
    return cells


def _cell(report: Mapping[str, Any], key: str) -> str:
    if key not in report:
        view, _, what = key.partition("_")
        part = (report.get("band_90") or {}).get(view)
        if what != "coverage" or part is None:
            return ""
        value, interval = part["coverage"], part["interval_95"]
    else:
        value = report[key]
        interval = next((report[name][key] for name in _INTERVALS if key in report.get(name, {})), None)
    text = f"{value:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")
    baseline = report.get("baseline", {}).get(key)
    return f"{text} ({baseline:.2f})" if baseline else text


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 0 when the card is written, 1 where the bundle cannot be used, 2 on wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m export.card", description=__doc__)
    parser.add_argument("--model", required=True, metavar="BUNDLE", help="a packaged model or the folder of a bundle")
    for option, what in (("phantoms", "phantoms"), ("people", "people left out of training (--people)")):
        parser.add_argument(
            f"--{option}", type=Path, metavar="JSON", help=f"report of export.training.evaluate on {what}"
        )
    parser.add_argument("--note", action="append", default=[], help="a sentence on another evaluation; repeat")
    options = parser.parse_args(arguments)
    given = {"phantoms unseen in training": options.phantoms, "people unseen in training": options.people}
    try:
        bundle = load_bundle(options.model)
        evaluations = {subjects: _report(path) for subjects, path in given.items() if path is not None}
        add_card(bundle, render(bundle.manifest, evaluations, options.note))
    except EdgeSpineError as error:
        return refused("card", error)
    print(f"{bundle.folder / CARD}: written")
    return 0


def _report(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path.name}: {error.strerror or 'cannot be read'}") from None
    except (ValueError, RecursionError):
        report = None
    if not isinstance(report, dict):
        raise UsageError(f"{path.name}: not a report as JSON")
    return report


if __name__ == "__main__":
    raise SystemExit(main())
