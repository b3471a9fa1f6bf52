"""The model card: what it says, what it refuses, and that adding it leaves everything else as it was."""

import json
import shutil

import pytest

from edge_spine.bundle import load_bundle
from edge_spine.bundle.load import CARD
from edge_spine.errors import UsageError
from export.card import main, render
from tests.edge_spine.fake_bundle import fake_bundle

REPORT = {
    "count": 300,
    "refused": 2,
    "sagittal_mae_mm": 3.654,
    "interval_95": {"sagittal_mae_mm": [3.45, 3.88]},
    "baseline": {"sagittal_mae_mm": 6.57},
    "band_90": {"coronal": {"coverage": 0.93, "interval_95": [0.91, 0.94]}},
    "model": {"name": "FAKE", "version": "0"},
}
SECTIONS = ("Model", "Intended use", "Training data", "Evaluation", "Uncertainty", "Limits", "Licence")


@pytest.fixture
def folder(tmp_path):
    return fake_bundle(tmp_path / "bundle")


def test_a_card_is_added_with_figures_and_changes_nothing_else(folder, tmp_path, capsys):
    before = load_bundle(folder)
    (tmp_path / "phantoms.json").write_text(json.dumps(REPORT), encoding="utf-8")
    arguments = [
        "--model",
        str(folder),
        "--phantoms",
        str(tmp_path / "phantoms.json"),
        "--note",
        "One real scan: 2 mm.",
    ]
    for _ in range(2):  # the second time it is replaced
        assert main(arguments) == 0
    after = load_bundle(folder)
    text = after.read(CARD).decode("utf-8")
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(SECTIONS)
    assert "| sagittal curves, MAE, mm | 3.65 [3.45, 3.88] (6.57) |" in text
    assert "| scans (refused) | 300 (2) |" in text and "- One real scan: 2 mm." in text
    assert "0.93 [0.91, 0.94]" in text and "None: a fake for tests." in text and "{" not in text
    kept = {name: entry for name, entry in after.manifest["files"].items() if name != CARD}
    assert kept == before.manifest["files"]
    different = {key for key in after.manifest if after.manifest[key] != before.manifest[key]}
    assert different == {"files", "manifest_sha256"}


def test_figures_of_another_model_are_refused(folder, tmp_path, capsys):
    before = (folder / "manifest.json").read_bytes()
    for report, message in (
        ({**REPORT, "model": {"name": "FAKE", "version": "9"}}, "of FAKE 9, not FAKE 0"),
        ({"p50": 3}, "holds no count"),
        ([], "not a report"),
        ({**REPORT, "model": "FAKE"}, "of FAKE, not FAKE 0"),
        ({**REPORT, "model": {"name": "FAKE"}}, "of FAKE None, not FAKE 0"),
        ({**REPORT, "sagittal_mae_mm": "3.6"}, "holds sagittal_mae_mm in another form"),
        ({**REPORT, "interval_95": {"sagittal_mae_mm": [3.45]}}, "holds sagittal_mae_mm in another form"),
        ({**REPORT, "interval_95": None}, "holds sagittal_mae_mm in another form"),
        ({**REPORT, "baseline": []}, "holds sagittal_mae_mm in another form"),
        ({**REPORT, "band_90": {"coronal": 0.9}}, "holds coronal_coverage in another form"),
    ):
        (tmp_path / "people.json").write_text(json.dumps(report), encoding="utf-8")
        assert main(["--model", str(folder), "--people", str(tmp_path / "people.json")]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert main(["--model", str(folder), "--people", str(tmp_path / "none.json")]) == 2
    assert (folder / "manifest.json").read_bytes() == before
    shutil.rmtree(folder)
    assert main(["--model", str(folder)]) == 1


def test_a_card_without_figures_says_so():
    manifest = {"name": "n", "version": "1", "architecture": "a", "training": "t", "licence": "MIT"}
    assert "\nNot measured.\n" in render(manifest, {}) and "No calibrated bands." in render(manifest, {})
    with pytest.raises(UsageError):
        render(manifest, {"phantoms": REPORT})
