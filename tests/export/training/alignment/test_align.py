"""Pairs of scan and MRI: known transforms come back, curves are right in millimetres, and training reads the shards."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_spine.errors import UsageError
from edge_spine.network import CURVE_ROWS
from edge_spine.scan import Scan
from export.studies.align_check import self_test, summary, within_limits
from export.training.alignment.align import align_all, main
from export.training.alignment.curves import track
from export.training.alignment.nifti import read_mri
from export.training.alignment.pairs import AlignedPair, PairFiles, _read_mask, align_pair, read_list, split_of
from export.training.alignment.rigid import Placement
from export.training.alignment.volume import PairSkipped, Volume
from export.training.dataset import FIELDS, MARGIN, Sample, SpineInScan, load_shards, make_sample
from export.training.phantoms.phantom import Phantom, dicom_file, make_phantom
from export.training.phantoms.scanner import IDXA
from export.training.samples import held_out_pairs
from export.training.train import main as train
from tests.export.training.alignment.made_pairs import lying, scan_spine_mask, write_list, write_pair

# one of each split
PAIRS = (("p0", 60_000_001, 6.0), ("p1", 60_000_005, -8.5), ("p11", 60_000_007, 2.5))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Phantom]]:
    folder = tmp_path_factory.mktemp("pairs")
    phantoms, pairs = {}, []
    for name, seed, angle in PAIRS:
        phantom = phantoms[name] = make_phantom(seed, scanner=IDXA)
        pairs.append(write_pair(folder, name, phantom, lying(phantom, angle)))
    write_list(folder / "list.csv", pairs)
    return folder, phantoms


@pytest.mark.slow
def test_known_transforms_are_recovered_from_faulty_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    cv2.setNumThreads(1)
    monkeypatch.setattr("export.studies.align_check._PHANTOMS", 6)
    errors = self_test(20)
    assert within_limits(errors) >= 0.95, summary(errors)
    assert np.percentile(errors[:, 2], 95) < 0.2 and np.percentile(errors[:, 3], 95) < 1.3, summary(errors)


def test_placement_turns_the_head_to_the_patients_left_and_comes_back() -> None:
    placement = Placement.about(10.0, np.array([0.0, 0.0]), np.array([3.0, -4.0]))
    head = placement.to_scan(np.array([[0.0, 100.0]]))
    assert head[0, 0] > 3 + 15
    np.testing.assert_allclose(placement.to_mri(head), [[0.0, 100.0]], atol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("few_shapes", "narrow")
def test_pairs_become_shards_that_training_reads(
    written: tuple[Path, dict[str, Phantom]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, phantoms = written
    out = tmp_path / "out"
    arguments = ["--list", str(folder / "list.csv"), "--out", str(out), "--workers", "1"]
    assert main(arguments) == 0
    report = {record["id"]: record for record in json.loads((out / "report.json").read_text())["pairs"]}
    for name, _, angle in PAIRS:
        record, phantom = report[name], phantoms[name]
        assert record["status"] == "aligned" and record["placement_spine"]["angle_deg"] == pytest.approx(angle, abs=0.2)
        assert (out / "pictures" / f"{name}.png").stat().st_size > 10_000
        shards = load_shards(out / split_of(name), fields=(*FIELDS, "id")).values()
        stored = {str(n): {f: s[f][k] for f in FIELDS} for s in shards for k, n in enumerate(s["id"])}[name]
        true = make_sample(phantom)
        rows = slice(MARGIN + 7, MARGIN + 7 + len(CURVE_ROWS))
        apart = np.abs(stored["curves"][rows] - true.curves[rows]) * phantom.model_pixel_mm
        sagittal = stored["curves"][rows, 3:] - stored["curves"][rows, 4].mean()
        sagittal_true = true.curves[rows, 3:] - true.curves[rows, 4].mean()
        side = np.abs(sagittal - sagittal_true) * phantom.model_pixel_mm
        print(f"{name}: coronal {apart[:, :3].mean():.2f} mm, sagittal {side.mean():.2f} mm")
        assert apart[:, :3].mean() < 1.5 and side.mean() < 1.5
        assert np.abs(stored["landmarks"] - true.landmarks).max() < 0.8
        assert stored["crop"].shape == true.crop.shape and stored["crop"].dtype == true.crop.dtype
    written_at = {path: path.stat().st_mtime_ns for path in out.glob("*/shard_*.npz")}
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/shard_*.npz")} == written_at
    print(capsys.readouterr().out)

    for path in (out / "test").glob("*.npz"):
        path.write_bytes(b"training must not open this")
    run = tmp_path / "run"
    common = ["--pairs", str(out), "--out", str(run), "--device", "cpu"]
    assert train([*common, "--every", "1000", "--minutes", "0.005"]) == 0
    assert (run / "weights.safetensors").stat().st_size > 1_000_000
    with pytest.raises(SystemExit):
        train([*common, "--validation", str(out / "test")])


def test_training_without_pairs_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no shards"):
        train(["--pairs", str(tmp_path), "--out", str(tmp_path / "run")])


@pytest.mark.slow
def test_a_pair_that_cannot_be_used_is_skipped_with_its_reason(
    written: tuple[Path, dict[str, Phantom]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = written
    good = read_list(folder / "list.csv")[0]
    empty, small, broken, absent = (tmp_path / name for name in ("secret_a.png", "secret_b.png", "c.nii", "secret_d"))
    mask = cv2.imread(str(good.dxa_mask), cv2.IMREAD_GRAYSCALE)
    empty.write_bytes(cv2.imencode(".png", mask * 0)[1].tobytes())
    small.write_bytes(cv2.imencode(".png", mask[:-1])[1].tobytes())
    broken.write_bytes(b"no NIfTI")
    bad = {
        "a": (replace(good, id="a", dxa_mask=empty), "dxa-mask-empty"),
        "b": (replace(good, id="b", dxa_mask=small), "dxa-mask-size"),
        "c": (replace(good, id="c", mri=broken), "mri-unreadable"),
        "d": (replace(good, id="d", dxa=absent), "dxa-missing"),
        "e": (replace(good, id="e", dxa_mask=absent), "dxa-mask-missing"),
    }
    write_list(tmp_path / "bad.csv", [pair for pair, _ in bad.values()])
    assert main(["--list", str(tmp_path / "bad.csv"), "--out", str(tmp_path / "out"), "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text())["pairs"]
    assert {record["id"]: record["code"] for record in report} == {name: code for name, (_, code) in bad.items()}
    assert "secret" not in printed and all(f"{name}: skipped [{code}]" in printed for name, (_, code) in bad.items())


@pytest.mark.slow
def test_an_mri_that_does_not_hold_the_whole_spine_is_refused(written: tuple[Path, dict[str, Phantom]]) -> None:
    folder, phantoms = written
    files = read_list(folder / "list.csv")[0]
    _, mask = read_mri(files.mri, files.mri_mask)
    pixel = phantoms["p0"].model_pixel_mm
    rows = np.flatnonzero(mask.values.any(axis=(0, 1)))
    still = Placement(0.0, (0.0, 0.0))
    cut = Volume(mask.values[:, :, : rows[-1] - 5], mask.voxel_mm, mask.first_mm)
    with pytest.raises(PairSkipped, match="field of view"):
        track(cut, still, pixel)
    short = mask.values.copy()
    short[:, :, rows[-1] - 25 :] = 0
    with pytest.raises(PairSkipped, match="covers"):
        track(replace(mask, values=short), still, pixel).in_scan(pixel, (2.4, 2.4))
    holed = mask.values.copy()
    holed[:, :, rows[60] : rows[85]] = 0
    with pytest.raises(PairSkipped, match="gaps"):
        track(replace(mask, values=holed), still, pixel)


@pytest.mark.slow
def test_specks_and_bites_in_the_mri_mask_hardly_move_the_curves(written: tuple[Path, dict[str, Phantom]]) -> None:
    folder, phantoms = written
    files = read_list(folder / "list.csv")[1]
    _, mask = read_mri(files.mri, files.mri_mask)
    pixel = phantoms["p1"].model_pixel_mm
    x, y, z = np.nonzero(mask.values)
    spoilt = mask.values.copy()
    spoilt[20:26, 80:86, 200:206] = 1
    for low, fill in ((40, 1), (90, 0)):
        layer = z == z.min() + low
        middle, front = int(x[layer].max()), int(y[layer].min())
        spoilt[middle - 4 : middle + 5, front : front + 15, z.min() + low : z.min() + low + 7] = fill
    still = Placement(0.0, (0.0, 0.0))
    clean, dirty = (track(replace(mask, values=values), still, pixel) for values in (mask.values, spoilt))
    height = np.linspace(clean.first_mm, clean.last_mm, 100)
    assert np.abs(clean.curves_at(height) - dirty.curves_at(height)).max() < 2.5


def test_splits_are_fixed_and_eighty_ten_ten() -> None:
    assert [split_of(name) for name, _, _ in PAIRS] == ["train", "validation", "test"]
    counts = dict.fromkeys(("train", "validation", "test"), 0)
    for k in range(5000):
        counts[split_of(str(k))] += 1
    assert counts["train"] == pytest.approx(4000, abs=120) and counts["test"] == pytest.approx(500, abs=90)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,dxa\n1,2\n", "columns"),
        ("id,dxa,dxa_mask,mri,mri_mask\n,b,c,d,e\n", "line 2: an id may have"),
        ("id,dxa,dxa_mask,mri,mri_mask\na,b,c,d,e\nb,b,c,d,e\na,b,c,d,e\n", "line 4: the id a stands in line 2"),
        ("id,dxa,dxa_mask,mri,mri_mask\na,b,c,d,e\nA,b,c,d,e\n", "line 3: the id A stands in line 2"),
        ('id,dxa,dxa_mask,mri,mri_mask\n"a","b\nb",c,d,e\n../a,b,c,d,e\n', "line 4: an id may have"),
    ],
)
def test_a_wrong_list_is_one_line(tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        read_list(tmp_path / "list.csv")
    assert main(["--list", str(tmp_path / "list.csv"), "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_a_pair_without_mask_is_skipped_and_ends_no_run(tmp_path: Path) -> None:
    """A cell that is empty or lacks at the end of its line."""
    for name in ("scan", "drawn", "volume"):
        (tmp_path / name).write_bytes(b"something")
    rows = "a,scan,drawn,volume,\nb,scan,drawn,volume\nc,scan,drawn,,mask\nd,absent,drawn,volume,mask\n"
    (tmp_path / "list.csv").write_text("id,dxa,dxa_mask,mri,mri_mask\n" + rows, encoding="utf-8")
    records = align_all(read_list(tmp_path / "list.csv"), tmp_path / "out")
    assert [record["code"] for record in records] == [
        "mri-mask-missing",
        "mri-mask-missing",
        "mri-missing",
        "dxa-missing",
    ]


@pytest.mark.slow
def test_a_scan_without_feet_is_refused(written: tuple[Path, dict[str, Phantom]], tmp_path: Path) -> None:
    folder, phantoms = written
    files = read_list(folder / "list.csv")[0]
    bone = phantoms["p0"].bone
    cut = replace(phantoms["p0"], bone=bone[: len(bone) * 3 // 4])
    dicom_file(cut).save_as(tmp_path / "cut.dcm", enforce_file_format=True)
    (tmp_path / "cut.png").write_bytes(cv2.imencode(".png", scan_spine_mask(phantoms["p0"])[: len(cut.bone)])[1])
    with pytest.raises(PairSkipped) as refused:
        align_pair(replace(files, dxa=tmp_path / "cut.dcm", dxa_mask=tmp_path / "cut.png"))
    assert refused.value.code == "body-not-whole"


def test_a_file_as_out_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.csv").write_text("id,dxa,dxa_mask,mri,mri_mask\na,b,c,d,e\n", encoding="utf-8")
    (tmp_path / "out").write_text("a file")
    assert main(["--list", str(tmp_path / "list.csv"), "--out", str(tmp_path / "out"), "--workers", "1"]) == 2
    assert "a folder is expected" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "a file"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pairs": 3}', '{"pairs": [{"name": 1}]}'])
def test_a_broken_report_is_written_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "list.csv").write_text("id,dxa,dxa_mask,mri,mri_mask\na,b,c,d,e\n", encoding="utf-8")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/report.json").write_text(content, encoding="utf-8")
    assert main(["--list", str(tmp_path / "list.csv"), "--out", str(tmp_path / "out"), "--workers", "1"]) == 1
    (record,) = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))["pairs"]
    assert record["code"] == "dxa-missing"


def test_what_nobody_foresaw_skips_one_pair_and_keeps_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def surprising(files: PairFiles, *_: object) -> AlignedPair:
        if files.id == "b":
            raise RuntimeError("Jane Doe")
        return _aligned()

    monkeypatch.setattr("export.training.alignment.align.align_pair", surprising)
    rows = "\n".join(f"{name},b,c,d,e" for name in "abc")
    (tmp_path / "list.csv").write_text(f"id,dxa,dxa_mask,mri,mri_mask\n{rows}\n", encoding="utf-8")
    arguments = ["--list", str(tmp_path / "list.csv"), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert "2 of 3 pairs" in said.out and "b: skipped [failed]: not foreseen: RuntimeError" in said.out
    assert "Jane" not in said.out + said.err
    # the next run keeps what is aligned, also where its report is lost
    (tmp_path / "out/report.json").write_text("{", encoding="utf-8")
    monkeypatch.setattr("export.training.alignment.align.align_pair", lambda *_: pytest.fail("aligned again"))
    (tmp_path / "list.csv").write_text("id,dxa,dxa_mask,mri,mri_mask\na,b,c,d,e\nc,b,c,d,e\n", encoding="utf-8")
    assert main(arguments) == 0
    assert "2 of 2 pairs" in capsys.readouterr().out
    # and their size, without which they could not be measured
    assert held_out_pairs(tmp_path / "out/train")[2].tolist() == [2.2, 2.2]


def test_an_interrupted_run_keeps_what_is_aligned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(files: PairFiles, *_: object) -> AlignedPair:
        if files.id == "b":
            raise KeyboardInterrupt
        return _aligned()

    monkeypatch.setattr("export.training.alignment.align.align_pair", interrupted)
    (tmp_path / "list.csv").write_text("id,dxa,dxa_mask,mri,mri_mask\na,b,c,d,e\nb,b,c,d,e\n", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        main(["--list", str(tmp_path / "list.csv"), "--out", str(tmp_path / "out"), "--workers", "1"])
    shards = load_shards(tmp_path / "out" / split_of("a"), fields=("id",)).values()
    assert [str(name) for shard in shards for name in shard["id"]] == ["a"]


class _Fatal(type(Path())):
    """The path of a file whose reading ends the process."""

    def is_file(self) -> bool:
        os._exit(1)


@pytest.mark.slow
def test_a_pair_that_ends_its_process_is_skipped_and_the_others_go_on(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    pairs = [PairFiles(name, absent, absent, absent, absent) for name in "abcdefgh"]
    pairs[2] = replace(pairs[2], dxa=_Fatal(absent))
    records = align_all(pairs, tmp_path / "out", workers=2)
    assert [record["code"] for record in records] == ["failed" if k == 2 else "dxa-missing" for k in range(8)]
    report = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    assert report["pairs"] == records and "by itself" in records[2]["message"]


def _sample() -> Sample:
    crop, small = np.zeros((272, 272), np.uint8), np.zeros((288, 112), np.uint8)
    return Sample(
        crop, np.zeros((272, 6), np.float32), small, np.zeros((3, 2), np.float32), np.zeros((19, 2), np.float32)
    )


def _aligned() -> AlignedPair:
    record = {
        "model_pixel_mm": 2.2,
        "placement_spine": {"angle_deg": 0.0},
        "image_correlation": 1.0,
        "spine_correlation": 1.0,
    }
    spine = SpineInScan(2.2, (0.0, 0.0), [], lambda z: np.zeros((len(z), 6)))
    return AlignedPair(_sample(), record, np.zeros((4, 4, 3), np.uint8), spine)


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (np.array([[0, 1], [1, 0]], np.uint16), [[0, 1], [1, 0]]),
        (np.array([[0, 7], [18, 0]], np.uint8), [[0, 1], [1, 0]]),
        (np.array([[0, 65535], [1, 0]], np.uint16), [[0, 1], [1, 0]]),
        (np.arange(256, dtype=np.uint8).reshape(16, 16), np.arange(256).reshape(16, 16) >= 128),
        (np.dstack([np.array([[0, 0], [9, 0]], np.uint8)] * 3 + [np.full((2, 2), 255, np.uint8)]), [[0, 0], [1, 0]]),
    ],
    ids=["16-bit ones", "labels", "16-bit", "shares", "colour and opacity"],
)
def test_a_mask_is_read_by_its_values(tmp_path: Path, drawn: np.ndarray, expected: object) -> None:
    (tmp_path / "mask.png").write_bytes(cv2.imencode(".png", drawn)[1].tobytes())
    scan = Scan(np.zeros(drawn.shape[:2], np.float32), (2.0, 2.0), "a scan", None)
    np.testing.assert_array_equal(_read_mask(tmp_path / "mask.png", scan), expected)
