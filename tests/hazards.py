"""Write edge_spine/HAZARDS.md: hazards, causes and controls, with the tests of each control by their names.

`python -m tests.hazards` writes the page. `test_hazards.py` fails where a control has no test any more, or where the
page is older than the names of the tests.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

TESTS = Path(__file__).resolve().parent / "edge_spine"
PAGE = TESTS.parents[1] / "edge_spine" / "HAZARDS.md"
_HEAD = """# Hazards

edge-spine is research software and no medical device: nothing here is a claim of safety. This page says what could
harm a person if a result were believed, what the software does about it, and which tests fail if it no longer does. The
tests, in tests/edge_spine, are listed by `python -m tests.hazards`, which writes this page; a test fails while the page
is not what it would write.
"""


@dataclass(frozen=True)
class Control:
    """One cause of a hazard, what is done about it, and its tests: "file" or "file::pattern" below tests/edge_spine."""

    cause: str
    measure: str
    tests: tuple[str, ...]


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
                "The image is stored mirrored or turned.",
                "It is put right by what the header says and flagged; a view from the side is refused; a header that "
                "says nothing is flagged `orientation-unknown`.",
                ("reading/test_orientation", "test_scan::*turn*"),
            ),
            Control(
                "A step or a file format exchanges left and right.",
                "All steps share one frame, DICOM LPS, and each format is read back by a reader that is not ours.",
                ("test_locate::left_and_right*", "outputs/test_meshes::*right*", "outputs/test_glb::*mirrors*"),
            ),
            Control(
                "A place in the report is on the wrong side of the stored image.",
                "Places are converted back to the image as it is stored, for each of its eight orientations.",
                (
                    "outputs/test_structured_report::places*",
                    "outputs/test_structured_report::*side",
                    "outputs/test_structured_report::cobb_lines*",
                ),
            ),
        ),
        "A header that states the wrong orientation is believed; nothing in a skeleton's outline shows it surely.",
    ),
    Hazard(
        "Wrong patient",
        "A result is filed under, or compared with, somebody else.",
        (
            Control(
                "A result loses or changes the patient, the order or the study of its scan.",
                "They are carried as they came; what cannot be carried is named, and an object without its patient is "
                "kept back.",
                (
                    "outputs/dicom/test_identity::patient*",
                    "outputs/dicom/test_identity::uids_are_carried*",
                    "outputs/dicom/test_values::what_archives*",
                    "outputs/dicom/test_values::the_order*",
                    "node/test_service::what_would_lose*",
                ),
            ),
            Control(
                "Two scans share a name, a folder, a UID or a label.",
                "Each scan has a folder of its own, and UIDs follow from content; labels of participants never merge.",
                (
                    "outputs/test_folders::*another*",
                    "cli/test_run::scans_of_one_name*",
                    "reading/test_files::repeated*",
                    "node/test_watch::two_scans*",
                    "outputs/dicom/test_identity::no_two*",
                    "cohort/test_tables::two_*",
                ),
            ),
            Control(
                "Scans processed at the same time exchange their results.",
                "Results are immutable, and threads share one estimator without sharing its state.",
                ("test_estimator::threads_share*", "test_estimator::no_result*"),
            ),
            Control(
                "Scans of two persons are compared.",
                "`compare` stops unless it is told that they are of one person.",
                ("cli/test_compare::two_persons*", "test_comparison::whose*"),
            ),
        ),
        "A scan that the scanner filed under the wrong patient stays there.",
    ),
    Hazard(
        "Wrong scale",
        "Lengths are too large or small, or angles are distorted.",
        (
            Control(
                "The spacing is missing, is that of the detector, or two statements disagree.",
                "Without spacing a scan is refused; other spacings are used only where the user says so, and flagged; "
                "gross disagreement is refused.",
                ("reading/test_spacing", "reading/test_dicom::*spacing*", "reading/test_checks::*spacing*"),
            ),
            Control(
                "The spacing is plausible and wrong.",
                "The body's proportions and its recorded height are compared with what adults have.",
                ("preprocessing/test_geometry::*wrong*", "preprocessing/test_geometry::*gross*"),
            ),
            Control(
                "A format or a program takes one unit for another.",
                "Every file states its unit, and its size is read back.",
                ("outputs/test_meshes::*size", "outputs/test_glb::*says*", "test_quantities::names_end*"),
            ),
        ),
        "An error of scale of a few per cent, equal along both axes, cannot be told from a tall or small person.",
    ),
    Hazard(
        "Silent loss",
        "A scan or its result disappears, and nobody looks for it.",
        (
            Control(
                "A process is killed, or a machine stops, at any moment.",
                "Files appear whole or not at all; what was under way is done again.",
                (
                    "test_files",
                    "node/test_service::*kill*",
                    "node/test_watch::*kill*",
                    "cohort/test_run::*killed*",
                    "cohort/test_pool::*killed*",
                ),
            ),
            Control(
                "The archive is away, full, or refuses.",
                "Results wait and are tried again; what is refused for good becomes a dead letter that is counted.",
                ("node/test_courier", "node/test_outbox::*dead_letter*"),
            ),
            Control(
                "The disk is full.",
                "The sender is told by a status, and no partial file is left.",
                ("node/test_service::*disk*", "node/test_worker::a_disk*"),
            ),
            Control(
                "One bad file among many stops a run, or is passed over.",
                "Each input ends in exactly one line or row, with a code; what is left out is named.",
                (
                    "cli/test_run::one_bad*",
                    "cohort/test_manifest::a_bad_line*",
                    "cohort/test_manifest::*named",
                    "cohort/test_batch::what_is_refused*",
                    "reading/test_archive::*named*",
                ),
            ),
        ),
        "A scan that never reaches the node is not known to it: compare its counts with the scanner's.",
    ),
    Hazard(
        "Stale model",
        "Results of two models, versions or settings are mixed or taken for each other.",
        (
            Control(
                "A result does not say what computed it.",
                "Every result names model, version, hash, engine and precision, and another model is another device.",
                (
                    "outputs/dicom/test_identity::another_model*",
                    "outputs/test_report_readers::dcmqi*",
                    "outputs/dicom/test_identity::whatever_else*",
                ),
            ),
            Control(
                "Results of an earlier model stay after a change.",
                "What another model or setting decided is decided again, and is no part of a cohort's table.",
                (
                    "cohort/test_shards::what_another*",
                    "cohort/test_tables::*stale*",
                    "cohort/test_run::what_options*",
                    "cohort/test_batch::another_version*",
                    "node/test_watch::what_decides*",
                ),
            ),
            Control(
                "A plan of TensorRT belongs to other weights, another driver or another GPU.",
                "A plan is kept with all that it depends on, and is compared with ONNX Runtime before use.",
                ("engines/tensorrt/test_plan_cache::whatever*", "engines/tensorrt/test_verdict::a_verdict*"),
            ),
        ),
        "Results that were sent to an archive stay there when a model is withdrawn.",
    ),
    Hazard(
        "Tampered or damaged model",
        "Changed weights, or an engine that computes wrongly, give plausible and wrong spines.",
        (
            Control(
                "A file of a bundle is changed or damaged.",
                "Every file is hashed before anything parses it; nothing is unpickled.",
                ("bundle/test_load::*", "test_whole_path::one_flipped*"),
            ),
            Control(
                "A plan on the disk is changed.",
                "Plans and their records are hashed and private.",
                ("engines/tensorrt/test_plan_cache::*changed*", "engines/tensorrt/test_plan_cache::*believed*"),
            ),
            Control(
                "A processor or an engine computes something else.",
                "References are compared in every row and scan; an engine that is off is refused and never replaced in "
                "silence.",
                (
                    "engines/test_verification",
                    "engines/test_select::*wrong*",
                    "engines/tensorrt/test_verdict::*refused",
                    "test_estimator::*silence",
                ),
            ),
        ),
        "Hashes tell damage and exchange; whoever can write the manifest can write a whole other model.",
    ),
    Hazard(
        "Over-trust of the inferred view",
        "The side view, which the scan does not show, or a doubtful result is taken for a measurement.",
        (
            Control(
                "An inferred number looks like a measured one.",
                "It is called inferred wherever it is shown, with what the side view is worth on people that the model "
                "has not seen; viewers get no measurement of it.",
                (
                    "outputs/test_wording::*side_view*",
                    "outputs/test_structured_report::*worth*",
                    "outputs/test_report_readers::ohif*",
                    "cohort/test_tables::the_dictionary*",
                ),
            ),
            Control(
                "A number is believed to its last digit.",
                "Angles have a calibrated 90 % interval, and curves a band, wherever the model has a calibration.",
                (
                    "outputs/test_structured_report::intervals*",
                    "outputs/test_wording::*interval*",
                    "test_comparison::the_error*",
                ),
            ),
            Control(
                "A research result is taken for a diagnosis.",
                "Reports are unverified and preliminary; they, the pictures and spine.glb carry the notice.",
                (
                    "outputs/test_structured_report::it_is_unverified*",
                    "outputs/test_report_readers::ohif*",
                    "outputs/test_preview_png::*must",
                    "outputs/test_glb::*says*",
                ),
            ),
            Control(
                "The image shows no spine that can be measured.",
                "Curves that no adult has, or that follow nothing bright, are refused; doubts are flags in words.",
                ("test_quality", "outputs/test_wording::every_flag*", "preprocessing/test_prepare::*refused*"),
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
        A control has no test of a name that it gives.
    """
    parts = [_HEAD]
    for hazard in HAZARDS:
        rows = [f"| {c.cause} | {c.measure} | {'<br>'.join(_proofs(c))} |" for c in hazard.controls]
        table = "\n".join(["| cause | control | tests |", "|---|---|---|", *rows])
        parts.append(f"## {hazard.name}\n\n{hazard.harm}\n\n{table}\n\nWhat is left: {hazard.left}\n")
    return "\n".join(parts)


def _proofs(control: Control) -> Iterator[str]:
    """Yield a file of tests with their names as sentences, for each file of a control."""
    by_file: dict[str, list[str]] = {}
    for selector in control.tests:
        file, _, pattern = selector.partition("::")
        found = [name for name in _tests(TESTS / f"{file}.py") if fnmatchcase(name, pattern or "*")]
        if not found:
            raise ValueError(f"no test {selector} for the control: {control.measure}")
        by_file.setdefault(file, []).extend(found)
    for file, names in by_file.items():
        yield f"`{file}.py`: {'; '.join(name.replace('_', ' ') for name in dict.fromkeys(names))}"


def _tests(file: Path) -> list[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    return [name.removeprefix("test_") for name in functions if name.startswith("test_")]


if __name__ == "__main__":
    argparse.ArgumentParser(description="Write edge_spine/HAZARDS.md.").parse_args()
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
