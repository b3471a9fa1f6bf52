"""Mixtures: who is left out stays out, budgets are equal, and people that help are found to help."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from export.regressor import SpineRegressor
from export.studies.frozen import Frozen, kernel_of, load_frozen, packs_of
from export.studies.mixtures import (
    MIXTURES,
    Mixer,
    Person,
    compare,
    exclude,
    figures,
    inner_folds,
    interval_over_packs,
    kinds_of,
    main,
    mixture,
    principal_shapes,
    table,
)
from export.training.dataset import load_shards, render, shard_path
from export.training.train import write_weights

A, B, C, MESH, JOINED = (frozenset(n.split("+")) for n in ("a+x", "b+x", "c+y", "mesh", "mesh+c"))
PHANTOM: Person = frozenset()


def _packs() -> tuple[Person, ...]:
    return (PHANTOM,) * 40 + (A,) * 12 + (B,) * 4 + (C,) * 12 + (MESH,) * 9


def test_samples_that_share_a_pack_are_excluded() -> None:
    packs = (PHANTOM, A, B, C, MESH, JOINED)
    assert exclude(packs, A).tolist() == [0, 3, 4, 5]
    assert exclude(packs, MESH).tolist() == [0, 1, 2, 3]
    assert kinds_of(packs, frozenset({"mesh"})).tolist() == ["phantom", "ct", "ct", "ct", "mesh", "ct"]


@pytest.mark.parametrize("name", list(MIXTURES))
@pytest.mark.parametrize("person", [A, B, C, MESH])
def test_the_person_left_out_is_never_learnt_from(name: str, person: Person) -> None:
    packs = _packs()
    kinds = kinds_of(packs, frozenset({"mesh"}))
    drawn = mixture(np.random.default_rng(0), exclude(packs, person), packs, kinds, MIXTURES[name], 8)
    if drawn is None:
        assert person == MESH and "mesh" in name
        return
    assert len(np.unique(drawn)) == 8
    assert not any(packs[row] & person for row in drawn)
    for kind, share in MIXTURES[name].items():
        assert (kinds[drawn] == kind).sum() == share * 8


def test_people_of_a_kind_are_drawn_alike() -> None:
    packs = _packs()
    kinds = kinds_of(packs, frozenset({"mesh"}))
    drawn = mixture(np.random.default_rng(0), np.arange(len(packs)), packs, kinds, {"ct": 1.0}, 20)
    assert drawn is not None
    assert [sum(packs[row] == person for row in drawn) for person in (A, B, C)] == [8, 4, 8]
    assert mixture(np.random.default_rng(0), np.arange(len(packs)), packs, kinds, {"ct": 1.0}, 29) is None


def test_inner_folds_remove_all_that_share_a_pack() -> None:
    packs = _packs()
    folds = inner_folds(np.random.default_rng(0), packs)
    assert len(folds) == 4
    for fold in folds:
        (person,) = {packs[row] for row in fold.judged}
        assert set(fold.removed) == {k for k, names in enumerate(packs) if names & person}
    alone = inner_folds(np.random.default_rng(0), packs[:40])
    assert np.array_equal(np.sort(np.concatenate([fold.removed for fold in alone])), np.arange(40))


def test_a_constant_error_is_told_from_the_rest() -> None:
    errors = np.full((4, 209, 2), 3.0)
    errors[::2, :, 1] += 1
    errors[1::2, :, 1] -= 1
    found = figures(errors)
    assert found["coronal_constant_mm"] == 3 and found["coronal_rest_mm"] == 0
    assert found["sagittal_constant_mm"] == 3 and found["sagittal_rest_mm"] == 1 and found["sagittal_mm"] == 3


def test_people_that_share_packs_count_as_fewer() -> None:
    values = np.array([0.0, 1.0] * 6)
    apart = interval_over_packs(values, [frozenset({str(k)}) for k in range(12)])
    shared = interval_over_packs(values, [frozenset({str(k % 2), f"other {k}"}) for k in range(12)])
    assert apart[0] < 0.5 < apart[1]
    assert shared[1] - shared[0] > 1.5 * (apart[1] - apart[0])


def test_shapes_span_what_varies() -> None:
    rng = np.random.default_rng(0)
    deviations = rng.standard_normal((50, 3)) @ rng.standard_normal((3, 627))
    shapes = principal_shapes(deviations)
    np.testing.assert_allclose(shapes @ shapes.T, np.eye(len(shapes)), atol=1e-9)
    np.testing.assert_allclose(deviations @ shapes.T @ shapes, deviations, atol=1e-9)


def _frozen(packs: tuple[Person, ...], views: int = 1) -> Frozen:
    """Curves are linear in tiny features; in people a second feature moves the sagittal curve as well."""
    rng = np.random.default_rng(3)
    features = rng.standard_normal((views, len(packs), 6)).astype(np.float16)
    person = np.array([bool(names) for names in packs])
    row = np.linspace(-1, 1, 209)
    targets = np.zeros((views, len(packs), 209, 6), dtype=np.float32)
    targets[..., :3] += 10 * features[..., 0, None, None] * row[:, None]
    side = features[..., 1] + person * 2 * features[..., 2]
    targets[..., 3:] += 10 * side[..., None, None] * row[:, None]
    return Frozen(features, targets, np.zeros_like(targets[0]), packs)


@pytest.mark.slow
@pytest.mark.parametrize("views", [1, 2])
def test_people_that_know_more_than_phantoms_are_ranked_above_them(views: int) -> None:
    packs = tuple(frozenset({name}) for name in "abcdmn" for _ in range(30)) + (PHANTOM,) * 150
    data = _frozen(packs, views)
    kinds = kinds_of(packs, frozenset("mn"))
    kept = np.arange(len(packs) - 20, len(packs))
    reference = np.tile(kinds == "phantom", views)
    report = compare(data, kinds, kernel_of(data.features.reshape(-1, 6), reference), [40, 5000], 1, kept)
    rows = {(row["mixture"], row["budget"]): row for row in report["rows"]}
    assert rows["phantoms", 5000]["too_few_images_for_people"] == 6
    error = {name: rows[name, 40]["mean"] for name in (*MIXTURES, "mean curve")}
    assert all(error[name]["coronal_mm"] < 0.2 * error["mean curve"]["coronal_mm"] for name in MIXTURES)
    assert error["mesh, CT"]["sagittal_mm"] < 0.2 * error["phantoms"]["sagittal_mm"]
    assert rows["phantoms", 40]["held_out_phantoms"]["sagittal_mm"] < 0.2 * error["phantoms"]["sagittal_mm"]
    assert rows["mesh, CT", 40]["sagittal_change_mm"]["interval_95"][1] < 0
    assert len(table(report).splitlines()) == 4 + len(report["rows"])


@pytest.mark.slow
def test_targets_of_the_person_left_out_change_nothing() -> None:
    packs = _packs()
    data = _frozen(packs)
    kernel = kernel_of(data.features[0], np.arange(len(packs)) < 40)
    test = np.flatnonzero([names == A for names in packs])
    train = exclude(packs, A)
    first = Mixer(data, kernel).errors(train, test, 0)[0] + data.targets[0][test][:, :, [1, 4]] * 2.15
    data.targets[0][[k for k, names in enumerate(packs) if names & A]] += 50
    second = Mixer(data, kernel).errors(train, test, 0)[0] + data.targets[0][test][:, :, [1, 4]] * 2.15
    np.testing.assert_allclose(first, second, atol=1e-3)


@pytest.mark.slow
def test_the_script_runs_on_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    render(tmp_path / "phantoms", 5, 500, workers=1)
    shard = next(iter(load_shards(tmp_path / "phantoms", fields=("crop", "curves")).values()))
    (tmp_path / "people").mkdir()
    named = np.array(["a+x", "b+x", "m", "m", "b+x"])
    np.savez(shard_path(tmp_path / "people", 0), crop=shard["crop"], curves=shard["curves"], packs=named)
    write_weights(SpineRegressor().init_(), tmp_path / "start.safetensors")
    arguments = ["--phantoms", str(tmp_path / "phantoms"), "--people", str(tmp_path / "people"), "--mesh", "m"]
    arguments += ["--weights", str(tmp_path / "start.safetensors"), "--out", str(tmp_path / "out")]
    arguments += ["--budgets", "4", "--views", "2", "--json", str(tmp_path / "report.json")]
    assert main(arguments) == 0
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["people"] == {"a+x": 1, "b+x": 2, "m": 2}
    rows = {row["mixture"]: row for row in report["rows"]}
    assert rows["phantoms"]["mean"]["sagittal_mm"] > 0 and rows["trained network"]["budget"] is None
    assert rows["mesh, CT"]["too_few_images_for_people"] == 3
    assert "| trained network |" in capsys.readouterr().out


@pytest.mark.slow
def test_packs_are_read_and_features_kept(phantom_cache: Path, tmp_path: Path) -> None:
    assert packs_of({"packs": np.array(["a+b", "c"])}, 2) == (frozenset("ab"), frozenset("c"))
    assert packs_of({}, 2) == (PHANTOM, PHANTOM)
    model = SpineRegressor().init_().eval()
    first = load_frozen([phantom_cache], model, "key", tmp_path / "out", (7, 3), 1, 10)
    (kept,) = (tmp_path / "out").iterdir()
    written = kept.stat().st_mtime_ns
    again = load_frozen([phantom_cache], model, "key", tmp_path / "out", (7, 3), 1, 10)
    assert kept.stat().st_mtime_ns == written
    assert first.features.shape == (1, 2, 7 * 3 * 1024)
    assert np.array_equal(first.features, again.features)
    with pytest.raises(ValueError, match="no shards"):
        load_frozen([tmp_path], model, "key", tmp_path / "out", (7, 3), 1, 10)
