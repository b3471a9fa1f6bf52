"""Write edge_spine/HAZARDS.md: hazards, causes and controls, with the tests that are marked to prove each control.

A test says which controls it proves: `@pytest.mark.hazard("image-turned")`, or `pytestmark` for all tests of a file.
`python -m tests.hazards` writes the page. `test_hazards.py` fails where a control has no test, a mark names no control,
or the page is older than the marks.
"""

from __future__ import annotations

import argparse
import ast
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "edge_spine" / "HAZARDS.md"
_HEAD = """# Hazards

edge-spine is research software and not a medical device: this page makes no claim of safety. It lists what could harm a
person if a result were believed, what the software does against it, and the tests that fail if it no longer does. These
tests, in tests/, are marked with the name of the control. `python -m tests.hazards` writes this page; a test fails
where the page is out of date.
"""


@dataclass(frozen=True)
class Control:
    """The name by which tests are marked, one cause of a hazard, and what is done about it."""

    name: str
    cause: str
    measure: str


@dataclass(frozen=True)
class Hazard:
    """What could go wrong, its harm, the controls, and the risk that they leave."""

    name: str
    harm: str
    controls: tuple[Control, ...]
    left: str


HAZARDS = (
    Hazard(
        "Wrong side",
        "A curve that is convex to the right is reported or drawn as convex to the left.",
        (
            Control(
                "image-turned",
                "The image is stored mirrored or turned.",
                "It is put right by what the header or Exif says and flagged; a view from the side is refused; a "
                "header that says nothing is flagged `orientation-unknown`.",
            ),
            Control(
                "sides-exchanged",
                "A step or a file format exchanges left and right.",
                "All steps share one frame, DICOM LPS, and each format is read back by a reader that is not ours.",
            ),
            Control(
                "place-on-wrong-side",
                "A place in the report is on the wrong side of the stored image.",
                "Places are converted back to the image as it is stored, for each of its eight orientations.",
            ),
        ),
        "A header that states the wrong orientation is believed: a skeleton's outline does not show it reliably.",
    ),
    Hazard(
        "Wrong patient",
        "A result is filed under, or compared with, somebody else.",
        (
            Control(
                "patient-lost",
                "A result loses or changes the patient, the order or the study of its scan.",
                "They are copied unchanged; a value that cannot be copied is named, and an object that would lose its "
                "patient is not sent.",
            ),
            Control(
                "names-collide",
                "Two scans share a name, a folder, a UID or a label.",
                "Each scan has its own folder, UIDs are computed from content, and labels of participants are unique.",
            ),
            Control(
                "results-exchanged",
                "Scans processed at the same time exchange their results.",
                "Results are immutable, and threads that share an estimator share no state of a scan.",
            ),
            Control(
                "two-persons",
                "Scans of two persons are compared.",
                "`compare` stops unless it is told that they are of one person.",
            ),
        ),
        "A scan that the scanner filed under the wrong patient is not detected.",
    ),
    Hazard(
        "Wrong scale",
        "Lengths are too large or small, or angles are distorted.",
        (
            Control(
                "spacing-missing",
                "The spacing is missing, is that of the detector, or two statements disagree.",
                "Without spacing a scan is refused; other spacings are used only where the user says so, and flagged; "
                "gross disagreement is refused.",
            ),
            Control(
                "spacing-plausible",
                "The spacing is plausible and wrong.",
                "The body's proportions and its recorded height are compared with what adults have.",
            ),
            Control(
                "unit-mistaken",
                "A format or a program takes one unit for another.",
                "Every file states its unit, and tests read its size back.",
            ),
        ),
        "An error of scale of a few per cent, equal along both axes, cannot be told from a tall or small person.",
    ),
    Hazard(
        "Silent loss",
        "A scan or its result is lost, and nobody notices.",
        (
            Control(
                "killed",
                "A process is killed, or a machine stops, at any moment.",
                "Files appear whole or not at all; interrupted work is repeated.",
            ),
            Control(
                "archive-away",
                "The archive is not reachable, is full, or refuses.",
                "Results wait and are sent again; results that are refused permanently become dead letters, which are "
                "counted.",
            ),
            Control(
                "disk-full",
                "The disk is full.",
                "The sender gets a status that says so, and no partial file is left.",
            ),
            Control(
                "bad-file",
                "One bad file among many stops a run, or is skipped without notice.",
                "Each input gives exactly one line or row, with a code; files that are left out are named.",
            ),
        ),
        "The node cannot know of a scan that never reaches it: compare its counts with the scanner's.",
    ),
    Hazard(
        "Stale model",
        "Results of two models, versions or settings are mixed or taken for each other.",
        (
            Control(
                "unnamed-model",
                "A result does not say what computed it.",
                "Every result names model, version, hash, engine and precision, and another model is another device.",
            ),
            Control(
                "earlier-results",
                "Results of an earlier model stay after a change.",
                "Scans are processed again after a change of model or settings; files of the earlier result are "
                "deleted, nothing is written where one cannot be, and a cohort's table leaves old rows out.",
            ),
            Control(
                "foreign-plan",
                "A plan of TensorRT belongs to other weights, another driver or another GPU.",
                "A plan is kept with a record of all that it depends on, and is compared with ONNX Runtime before use.",
            ),
        ),
        "Results that were sent to an archive stay there when a model is withdrawn.",
    ),
    Hazard(
        "Tampered or damaged model",
        "Changed weights, or an engine that computes wrongly, give plausible and wrong spines.",
        (
            Control(
                "bundle-changed",
                "A file of a bundle is changed or damaged.",
                "Every file is hashed before anything parses it; nothing is unpickled.",
            ),
            Control(
                "plan-changed",
                "A plan on the disk is changed.",
                "Plans and their records are hashed, and only their user can write them.",
            ),
            Control(
                "computes-wrongly",
                "A processor or an engine computes other numbers.",
                "References are compared in every row and scan; an engine that misses the tolerance is refused, and "
                "never replaced without notice.",
            ),
        ),
        "Hashes detect damage and mix-ups; they do not stop someone who can write the manifest too.",
    ),
    Hazard(
        "Over-trust of the inferred view",
        "The side view, which the scan does not show, or a doubtful result is taken for a measurement.",
        (
            Control(
                "inferred-as-measured",
                "An inferred number looks like a measured one.",
                "It is labelled as inferred wherever it is shown, with the accuracy of the side view on unseen people; "
                "viewers get no measurement of it.",
            ),
            Control(
                "last-digit",
                "A number is believed to its last digit.",
                "Angles have a calibrated 90 % interval, and curves a band, wherever the model has a calibration; both "
                "are wider where the picture is disturbed.",
            ),
            Control(
                "taken-for-diagnosis",
                "A research result is taken for a diagnosis.",
                "Reports are unverified and preliminary; every output file says that it is for research only.",
            ),
            Control(
                "no-spine",
                "The image shows no spine that can be measured.",
                "Curves that no adult has, or that follow nothing bright, are refused; doubtful results are flagged.",
            ),
        ),
        "A notice can be cropped from a picture, and the model's accuracy on patients is unknown.",
    ),
)


def page() -> str:
    """Return the page.

    Raises
    ------
    ValueError
        A control has no test, or a mark names no control.
    """
    proofs, parts = marked(), [_HEAD]
    names = {control.name for hazard in HAZARDS for control in hazard.controls}
    if wrong := [*sorted(names - proofs.keys()), *sorted(proofs.keys() - names)]:
        raise ValueError(f"controls without a test, or marks without a control: {', '.join(wrong)}")
    for hazard in HAZARDS:
        table = ["| control | cause | measure | tests |", "|---|---|---|---|"]
        for control in hazard.controls:
            tests = "<br>".join(f"`{file}`: {'; '.join(found)}" for file, found in proofs[control.name].items())
            table.append(f"| {control.name} | {control.cause} | {control.measure} | {tests} |")
        lines = "\n".join(table)
        parts.append(f"## {hazard.name}\n\n{hazard.harm}\n\n{lines}\n\nWhat is left: {hazard.left}\n")
    return "\n".join(parts)


def marked() -> dict[str, dict[str, list[str]]]:
    """Return the tests that are marked with each name of a control: by file, as sentences."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        of_all = [name for node in body if isinstance(node, ast.Assign) for name in _marks(node)]
        for node in body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                said = node.name.removeprefix("test_").replace("_", " ")
                for name in dict.fromkeys([*of_all, *(name for each in node.decorator_list for name in _marks(each))]):
                    found.setdefault(name, {}).setdefault(path.relative_to(TESTS).as_posix(), []).append(said)
    return found


def _marks(node: ast.AST) -> list[str]:
    """Return the arguments of `pytest.mark.hazard` within a decorator or an assignment."""
    calls = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
    marks = [call for call in calls if ast.unparse(call.func) == "pytest.mark.hazard"]
    return [str(ast.literal_eval(argument)) for call in marks for argument in call.args]


if __name__ == "__main__":
    argparse.ArgumentParser(description="Write edge_spine/HAZARDS.md.").parse_args()
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
