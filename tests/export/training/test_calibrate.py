"""Calibration: the quantile by hand and in the long run, coverage on errors of a known law, and the command itself."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from edge_spine.bundle import load_bundle
from edge_spine.bundle.bands import widening
from edge_spine.errors import BundleError, UsageError
from export.training.block import replace_block
from export.training.calibrate import (
    Errors,
    bands_block,
    calibrate,
    conformal_quantile,
    coverage_table,
    fit_severity,
    main,
    sagittal_gain,
)
from export.training.dataset import BAND_SEED, CALIBRATION_SEED, EVALUATION_SEED, REFERENCE_SEED
from export.training.phantoms.phantom import Phantom, make_phantom
from tests.edge_spine.fake_bundle import fake_bundle, fake_calibration

CHECKPOINT = {"file": "fake", "sha256": "c" * 64, "epoch": None}
phantom_of = cache(make_phantom)


def drawn(seed: int, count: int, severity: tuple[float, float] = (30.0, 60.0)) -> Errors:
    """Invented errors that grow with the curve, each phantom's rows alike."""
    rng = np.random.default_rng(seed)
    cobb = rng.exponential(18, count)
    size = np.stack([widening(cobb, value) for value in severity], axis=1)
    alike = rng.standard_normal((count, 2, 1)) + 0.5 * rng.standard_normal((count, 2, 209))
    return Errors(
        np.abs(alike) * size[..., np.newaxis] * np.linspace(0.5, 1.5, 209), cobb, 0, rng.normal(0, 3, (len(cobb), 3))
    )


def test_the_quantile_by_hand() -> None:
    scores = np.array([5.0, 3, 9, 1, 7, 2, 8, 4, 6])
    assert conformal_quantile(scores) == 9  # ceil(10 x 0.9) = 9th of nine
    assert conformal_quantile(np.arange(1.0, 20.0)) == 18  # ceil(20 x 0.9)
    assert conformal_quantile(np.arange(1.0, 11.0)) == 10  # ceil(11 x 0.9) = ceil(9.9)
    assert conformal_quantile(np.arange(1.0, 1001.0)) == 901  # ceil(1001 x 0.9) = ceil(900.9)
    assert conformal_quantile(np.array([4.0, 1, 3, 2]), 0.5) == 3  # ceil(5 x 0.5)
    rows = np.stack([scores, 10 * scores[::-1], np.roll(scores, 3) + 1], axis=1)
    assert conformal_quantile(rows).tolist() == [9, 90, 10]


@pytest.mark.parametrize("count", [9, 15, 19, 24, 99])
def test_the_quantile_covers_as_often_as_finite_samples_promise(count: int) -> None:
    """The chance of a fresh score is exactly rank / (n + 1), whatever its law; the plain quantile falls short."""
    rng = np.random.default_rng(count)
    scores = rng.gamma(0.7, size=(count, 40_000))
    fresh = rng.gamma(0.7, size=40_000)
    promised = -(-9 * (count + 1) // 10) / (count + 1)
    found = float((fresh <= conformal_quantile(scores)).mean())
    assert found == pytest.approx(promised, abs=0.006) and promised >= 0.9
    if count <= 24:
        assert float((fresh <= np.quantile(scores, 0.9, axis=0)).mean()) < 0.893


def test_too_few_phantoms_are_refused() -> None:
    with pytest.raises(UsageError, match="8 phantoms are too few for a band of 90%, 9 are needed"):
        conformal_quantile(np.arange(8.0))
    for count in (1, 10):
        with pytest.raises(UsageError, match="too few"):
            calibrate(drawn(0, count))
    assert calibrate(drawn(0, 11))["count"] == 9


def test_the_angle_that_doubles_errors_is_found() -> None:
    rng = np.random.default_rng(1)
    cobb = rng.exponential(18, 2000)
    for true in (25.0, 60.0):
        error = rng.exponential(1.0, 2000) * widening(cobb, true)
        assert fit_severity(error, cobb) == pytest.approx(true, rel=0.2)
    assert fit_severity(rng.exponential(1.0, 2000), cobb) > 150


def test_bands_hold_nine_of_ten_fresh_errors_of_every_severity() -> None:
    found, fresh = calibrate(drawn(2, 2500)), drawn(3, 4000)
    assert found["severity_deg"]["coronal"] == pytest.approx(30, rel=0.25)
    for index, view in enumerate(("coronal", "sagittal")):
        scale = widening(fresh.cobb_deg, found["severity_deg"][view])
        inside = fresh.error_px[:, index] <= np.array(found[view]) * scale[:, np.newaxis]
        assert inside.mean() == pytest.approx(0.9, abs=0.02)
        assert inside.mean(axis=0).min() > 0.86
        for low, high in ((0, 10), (10, 25), (25, 40), (40, 180)):
            group = (low <= fresh.cobb_deg) & (fresh.cobb_deg < high)
            assert inside[group].mean() == pytest.approx(0.9, abs=0.045)


def test_seeds_are_nobody_elses() -> None:
    assert BAND_SEED - max(EVALUATION_SEED, CALIBRATION_SEED, REFERENCE_SEED) >= 1_000_000
    assert 40_000_913 - BAND_SEED > 1_000_000, "the demo scan"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime", reason="an engine is needed: pip install '.[cpu]'")
    return fake_bundle(tmp_path / "fake", checkpoint=CHECKPOINT, bands=fake_calibration())


@pytest.mark.slow
def test_a_bundle_gets_bands_of_its_own_and_nothing_else_changes(
    model: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The FAKE networks always answer the same: their errors are whatever phantoms differ by."""
    monkeypatch.setattr("export.training.calibrate.make_phantom", phantom_of)
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    arguments = ["--model", str(model), "--count", "30", "--engine", "onnx-cpu", "--workers", "1"]
    assert main(arguments) == 0
    after = {path.name: path.read_bytes() for path in model.iterdir()}
    changed = [name for name in after if after[name] != before.get(name)]
    assert sorted(after) == sorted(before) and changed == ["manifest.json"]
    old, new = (json.loads(content["manifest.json"]) for content in (before, after))
    assert {key for key in new if new[key] != old.get(key)} == {"bands", "angles", "manifest_sha256"}
    bands = new["bands"]
    assert bands["weights_sha256"] == "c" * 64
    assert bands["localiser_sha256"] == new["files"]["localiser.onnx"]["sha256"]
    assert f"seeds from {BAND_SEED}" in bands["calibrated_on"] and 9 <= bands["count"] <= 24
    calibration = load_bundle(model).bands
    assert calibration is not None and calibration.sagittal.min() > 0.5
    assert capsys.readouterr().out.startswith("coronal: ")
    assert main(arguments) == 0
    assert (model / "manifest.json").read_bytes() == after["manifest.json"], "the same phantoms, the same bands"


def test_bands_that_were_tampered_with_are_refused(model: Path) -> None:
    bundle = load_bundle(model)
    replace_block(bundle, "bands", bands_block(bundle, drawn(0, 40), BAND_SEED))
    content = (model / "manifest.json").read_bytes()
    row = str(json.loads(content)["bands"]["sagittal"][100])
    narrower = content.replace(f" {row}".encode(), f" {float(row) / 2}".encode(), 1)
    assert narrower != content
    (model / "manifest.json").write_bytes(narrower)
    with pytest.raises(BundleError, match="changed after it was written"):
        load_bundle(model)


def test_an_interrupted_calibration_leaves_the_bundle(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    monkeypatch.setattr("export.training.calibrate.collect", lambda *_: drawn(0, 40))

    def full_disk(path: Path, _: bytes) -> int:
        raise OSError(28, "No space left on device", path.name)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    assert main(["--model", str(model), "--engine", "onnx-cpu", "--workers", "1"]) == 1
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


def test_a_bundle_that_was_replaced_meanwhile_is_left(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced(*_: object) -> Errors:
        fake_bundle(model, checkpoint={**CHECKPOINT, "epoch": 3})
        return drawn(0, 40)

    monkeypatch.setattr("export.training.calibrate.collect", replaced)
    assert main(["--model", str(model), "--engine", "onnx-cpu", "--workers", "1"]) == 2
    assert load_bundle(model).bands is None


def test_what_cannot_be_calibrated_is_one_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = ["--engine", "onnx-cpu", "--workers", "1"]
    before = (model / "manifest.json").read_bytes()
    assert main(["--model", str(model), "--count", "3", *run]) == 2
    assert main(["--model", str(model), "--count", "0", *run]) == 2
    assert main(["--model", str(model), "--seed", str(EVALUATION_SEED), *run]) == 2
    assert main(["--model", str(tmp_path / "nowhere"), *run]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("calibrate: ")]
    for line, message in zip(lines, ("too few", "--count", "--seed must be", "no such model bundle"), strict=True):
        assert message in line
    assert (model / "manifest.json").read_bytes() == before
    nameless = load_bundle(fake_bundle(tmp_path / "nameless"))
    with pytest.raises(UsageError, match="does not name the weights"):
        bands_block(nameless, drawn(0, 40), BAND_SEED)


def of_people(count: int, size: float) -> dict[str, Errors]:
    """Invented errors of people: each with one of its own, the same in all rows and images, on top of the rest."""
    people = {}
    for index, own in enumerate(np.random.default_rng(9).standard_normal(count)):
        rest = drawn(100 + index, 30)
        people[f"person {index}"] = Errors(
            rest.error_px * 0.1 + own * size, rest.cobb_deg, 0, rest.angles_deg, np.full(30, 4.0)
        )
    return people


def test_bands_are_those_of_people_where_they_are_wider() -> None:
    errors = drawn(8, 400)
    alone = calibrate(errors)
    for size, wider in ((20.0, True), (0.0, False)):
        found = calibrate(errors, of_people(5, size))
        for view in ("coronal", "sagittal"):
            assert (np.array(found[view]) >= np.array(alone[view])).all()
            assert (np.mean(found[view]) > 2 * np.mean(alone[view])) is np.bool_(wider)
        assert found["severity_deg"] == alone["severity_deg"] and found["count"] == alone["count"]


def test_coverage_is_printed_side_by_side() -> None:
    lines = coverage_table(drawn(8, 400), of_people(5, 8.0))
    shares = {line[:-20].strip(): [float(share[:-1]) for share in line[-20:].split()] for line in lines[1:]}
    assert lines[0].split()[-2:] == ["coronal", "sagittal"]
    assert shares["phantoms, their bands alone"] == pytest.approx([90, 90], abs=3)
    assert min(shares["phantoms"]) > 95 > 60 > max(shares["people, phantoms' bands alone"])
    left_out = shares["people, each by bands from the others (5)"]
    of_each = np.array([shares[f"person {index}"] for index in range(5)])
    assert left_out == pytest.approx(of_each.mean(axis=0).tolist(), abs=0.1)
    assert all(np.array(left_out) < shares["people, in sample"])


def test_the_gain_by_hand() -> None:
    error = np.zeros((10, 2, 209))
    error[:, 1] = -3.0
    people = {
        name: Errors(error, np.zeros(10), 0, np.zeros((10, 3)), np.full(10, baseline))
        for name, baseline in (("a", 4.0), ("b", 6.0))
    }
    assert sagittal_gain(people) == pytest.approx(1 - 3 / 5)
    with pytest.raises(ValueError, match="mean curve"):
        sagittal_gain({"a": Errors(error, np.zeros(10), 0, np.zeros((10, 3)))})


@pytest.fixture
def people(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, tuple[str, ...], int]]:
    """STAND-INS for people of real bone: phantoms; returns what was asked for."""
    asked = []

    def make_person(folder: Path, names: tuple[str, ...], seed: int) -> Phantom:
        asked.append((folder, names, seed))
        return phantom_of(seed)

    monkeypatch.setattr("export.training.calibrate.make_person", make_person)
    monkeypatch.setattr("export.training.calibrate.make_phantom", phantom_of)
    return asked


@pytest.mark.slow
def test_people_widen_the_bands_of_a_bundle_and_it_says_so(
    tmp_path: Path, people: list[tuple[Path, tuple[str, ...], int]], capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("onnxruntime", reason="an engine is needed: pip install '.[cpu]'")
    # the FAKE networks find a spine in some phantoms only
    model = Path(shutil.copytree(load_bundle("lite").folder, tmp_path / "model"))
    before = load_bundle(model).bands
    run = ["--model", str(model), "--count", "30", "--engine", "onnx-cpu", "--workers", "1", "--per-person", "5"]
    assert main([*run, "--people", "packs", "--only", "one,two", "--only", "three", "--only", "four"]) == 0
    assert {(folder, names) for folder, names, _ in people} == {
        (Path("packs"), names) for names in (("one", "two"), ("three",), ("four",))
    }
    assert len({seed for *_, seed in people}) == 15 and min(seed for *_, seed in people) == BAND_SEED
    bands = load_bundle(model).manifest["bands"]
    assert "15 images of 3 left-out people (one,two, three, four), 0 refused; not patients" in bands["calibrated_on"]
    assert "over people" in bands["method"] and bands["schema"] == "edge-spine/bands/2"
    calibration = load_bundle(model).bands
    assert calibration is not None and calibration.sagittal_gain == bands["sagittal_gain"]
    # phantoms, on which the model is much better than the mean curve
    assert before is not None and before.sagittal_gain != bands["sagittal_gain"] and 0.25 < bands["sagittal_gain"] < 0.9
    printed = capsys.readouterr().out
    assert "people, each by bands from the others (3)" in printed and "sagittal gain" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--people", "packs"], "belong together"),
        (["--only", "a"], "belong together"),
        (["--people", "packs", "--only", "a", "--only", "b"], "3 people or more"),
        (["--people", "packs", "--only", "a,b", "--only", "b", "--only", "c"], "share no bone"),
        (["--people", "packs", "--only", "a", "--only", "a", "--only", "c"], "share no bone"),
        (["--people", "packs", "--only", "a,", "--only", "b", "--only", "c"], "share no bone"),
        (["--people", "packs", "--only", "a", "--only", "b", "--only", "c", "--per-person", "4"], "5 images each"),
    ],
)
def test_people_who_are_not_enough_are_one_line(
    model: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["--model", str(model), *arguments]) == 2
    assert message in capsys.readouterr().err
