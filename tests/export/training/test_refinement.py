from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="install edge-spine[export]")

from edge_spine.bundle import load_bundle
from edge_spine.bundle.blocks import block_problem, parsed_refinement
from edge_spine.preprocessing.crop import as_tensor
from edge_spine.refine import HALF_WAVES, PARTS, TAPS, errors_px, refined
from export.training.phantoms.phantom import make_phantom
from export.training.refinement import Case, block_of, cases_of, fit_filters, fit_shares, main
from tests.edge_spine.fake_bundle import fake_bundle
from tests.edge_spine.test_refine import FIVE_HALF_WAVES, HALF_WIDTH, STRAIGHT, block, column_image, output_at


def columns(count: int) -> list[Case]:
    """FAKE images: noisy columns that wander, with straight guesses."""
    rng = np.random.default_rng(3)
    cases = []
    for _ in range(count):
        true = 112 + rng.normal(0, 1.5) * np.cos(np.pi * rng.uniform(2, 5) * np.linspace(0, 1, 209))
        crop = column_image(true) + rng.normal(0, 0.03, (224, 224)).astype(np.float32)
        cases.append(Case(crop, STRAIGHT, np.full(209, HALF_WIDTH), true, np.full(209, HALF_WIDTH)))
    return cases


def test_filters_fitted_on_columns_find_another_column() -> None:
    filters = fit_filters(columns(12))
    assert (len(filters), {len(values) for values in filters}) == (PARTS, {TAPS})
    fitted = block_of(filters, 300.0, 0.3, [1.0] * HALF_WAVES, 0.0, [0.0] * PARTS)
    assert block_problem("refine", fitted) is None
    moved = refined(
        as_tensor(column_image(112 + FIVE_HALF_WAVES)), output_at(STRAIGHT), parsed_refinement(fitted)
    ).reshape(209, 6)[:, 1]
    found = (moved - 0.5) * 224
    assert float(found @ FIVE_HALF_WAVES) / float(FIVE_HALF_WAVES @ FIVE_HALF_WAVES) > 0.85


def test_shares_are_kept_of_what_the_image_tells() -> None:
    cases = columns(12)
    shares, *_ = fit_shares(cases, fit_filters(cases), 300.0, 0.3)
    # these columns wander with 2 to 5 half-waves, and nothing else is told
    assert min(shares[2:6]) > 0.7
    told = [case.true + 3 * np.random.default_rng(5).normal(0, 1, 209) for case in cases]
    elsewhere = [
        Case(c.crop, c.centre, c.half_width, np.roll(t, 97), c.half_width) for c, t in zip(cases, told, strict=True)
    ]
    assert sum(fit_shares(elsewhere, fit_filters(cases), 300.0, 0.3)[0]) < 0.6 * sum(shares)


def test_widths_that_are_off_are_put_right() -> None:
    rng = np.random.default_rng(4)
    cases = []
    for k in range(12):
        said = np.full(209, HALF_WIDTH * rng.uniform(0.85, 1.15))
        crop = column_image(STRAIGHT) + rng.normal(0, 0.03, (224, 224)).astype(np.float32)
        cases.append(Case(crop, STRAIGHT + 0.1 * (k % 2), said, STRAIGHT, np.full(209, HALF_WIDTH)))
    filters = fit_filters(cases + columns(6))
    chosen = parsed_refinement(block_of(filters, 300.0, 0.3, *fit_shares(cases, filters, 300.0, 0.3)))
    before = np.array([np.abs(case.half_width - HALF_WIDTH).mean() for case in cases])
    after = np.array(
        [
            np.abs(case.half_width + errors_px(case.crop, case.centre, case.half_width, chosen)[1] - HALF_WIDTH).mean()
            for case in cases
        ]
    )
    assert after.mean() < 0.7 * before.mean()


def test_the_same_cases_give_the_same_filters() -> None:
    assert fit_filters(columns(3)) == fit_filters(columns(3))


@pytest.mark.slow
def test_the_true_centre_lies_on_the_column_of_the_crop() -> None:
    bundle = load_bundle()
    (case,) = cases_of(bundle, [make_phantom(46_000_000)], "onnx-cpu", 1)
    assert case.crop.shape == (224, 224)
    assert np.abs(case.true - case.centre).mean() < 2
    rows = np.rint(7.5 + np.arange(209)).astype(int)

    def grey(offset: float) -> float:
        return float(case.crop[rows, np.rint(case.true + offset).astype(int)].mean())

    assert grey(0) > grey(-20) + 0.05 and grey(0) > grey(20) + 0.05


def test_a_refinement_is_taken_out_of_a_bundle(tmp_path: Path) -> None:
    model = fake_bundle(tmp_path / "model", refine=block())
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    assert load_bundle(model).refinement is not None
    assert main(["--model", str(model), "--off"]) == 0
    assert load_bundle(model).refinement is None
    assert {p.name for p in model.iterdir() if p.read_bytes() != before[p.name]} == {"manifest.json"}


def test_a_refinement_is_put_into_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fake_bundle(tmp_path / "model")
    monkeypatch.setattr("export.training.refinement.people_scans", lambda *_: iter(()))
    monkeypatch.setattr("export.training.refinement.cases_of", lambda *_: columns(2))
    arguments = ["--model", str(model), "--people", str(tmp_path), "--only", "one", "--outlier", "0.7"]
    assert main(arguments) == 0
    found = load_bundle(model).refinement
    assert found is not None and found.outlier == 0.7


def test_what_is_no_bundle_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(tmp_path), "--off"]) == 1
    assert capsys.readouterr().err.startswith("refinement: ")
    with pytest.raises(SystemExit):
        main(["--model", str(tmp_path)])
