"""The table of formats: what is asked for by name, written whole or not at all, and loaded only then."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from pydicom.dataset import Dataset

from edge_spine import files as atomic
from edge_spine.cli import main as cli
from edge_spine.errors import OutputError, UsageError
from edge_spine.outputs import preview_png, write_outputs
from edge_spine.outputs import registry as outputs
from edge_spine.outputs.dicom import identity
from edge_spine.outputs.registry import DEFAULT_FORMATS, DICOM_OBJECTS, FORMATS, parse_formats
from edge_spine.reconstruct import Spine
from edge_spine.result import SpineResult
from tests.edge_spine.fake_result import fake_result
from tests.edge_spine.outputs.dicom_checks import fake_dicom_result, read


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "find_spec", lambda name: None)
    for name in ("sr", "json,sc"):
        with pytest.raises(UsageError, match=r"needs the package highdicom: pip install '\.\[dicom\]'"):
            parse_formats(name)
    assert parse_formats("json,ply,png,stl") == ("json", "ply", "png", "stl")


@pytest.mark.slow
def test_highdicom_is_loaded_for_its_formats_only() -> None:
    code = (
        "import sys\n"
        "from edge_spine.outputs.registry import FORMATS, parse_formats\n"
        "from tests.edge_spine.outputs.dicom_checks import fake_dicom_result\n"
        "result = fake_dicom_result()\n"
        "for name in ('json', 'ply', 'png', 'stl'): FORMATS[name].render(result)\n"
        "FORMATS['stl-dcm'].render(result)\n"
        "parse_formats(','.join(FORMATS))\n"
        "print('highdicom' in sys.modules)\n"
        "FORMATS['sc'].render(result)\n"
        "print('highdicom' in sys.modules)\n"
    )
    for package in ("highdicom", "reportlab", "trimesh"):
        pytest.importorskip(package, reason="pip install '.[dicom,report]'")
    root = Path(__file__).resolve().parents[3]
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=120)
    assert (ended.stdout.split(), ended.stderr) == (["False", "True"], "")


def test_the_usual_outputs_stay_three() -> None:
    assert DEFAULT_FORMATS == ("json", "ply", "png")
    assert set(FORMATS) - set(DEFAULT_FORMATS) == {"csv", "stl", "glb", "html", "pdf", *DICOM_OBJECTS}
    assert tuple(DICOM_OBJECTS) == ("sr", "sc", "stl-dcm", "pdf-dcm")
    assert [name for name, known in FORMATS.items() if known.filename.endswith(".dcm")] == [*DICOM_OBJECTS]


def test_every_writer_of_the_table_exists() -> None:
    for writer in FORMATS.values():
        module, _, name = writer.target.partition(":")
        tree = ast.parse((Path(outputs.__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, writer.target


def test_files_and_series_have_names_and_numbers_of_their_own() -> None:
    filenames = [known.filename for known in FORMATS.values()]
    numbers = [known.series_number for known in DICOM_OBJECTS.values()]
    assert len(set(filenames)) == len(filenames) and numbers == sorted(set(numbers))


def test_dicom_results_are_written_beside_the_others(tmp_path: Path) -> None:
    for package in ("highdicom", "reportlab", "trimesh"):
        pytest.importorskip(package, reason="pip install '.[dicom,report]'")
    _, paths = write_outputs(fake_dicom_result(), tmp_path, tuple(FORMATS))
    assert sorted(path.name for path in paths) == [
        "curves.csv",
        "preview.png",
        "preview.sc.dcm",
        "report.html",
        "report.pdf",
        "report.pdf.dcm",
        "result.json",
        "spine.glb",
        "spine.ply",
        "spine.sr.dcm",
        "spine.stl",
        "spine.stl.dcm",
    ]
    assert read((tmp_path / "spine.sr.dcm").read_bytes()).Modality == "SR"


@pytest.mark.slow
def test_all_formats_share_mesh_identity_and_panels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for package in ("highdicom", "reportlab", "trimesh"):
        pytest.importorskip(package, reason="pip install '.[dicom,report]'")
    calls: Counter[str] = Counter()

    def counted(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def counting(*given: Any) -> Any:
            calls[name] += 1
            return real(*given)

        monkeypatch.setattr(owner, name, counting)

    counted(Spine, "mesh")
    counted(identity, "copied_attributes")
    counted(preview_png, "_with_panels")
    write_outputs(fake_dicom_result(), tmp_path, tuple(FORMATS))
    assert calls == {"mesh": 1, "copied_attributes": 1, "_with_panels": 1}


def test_a_scan_that_is_no_dicom_file_writes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="pip install '.[dicom]'")
    with pytest.raises(OutputError, match="needs a DICOM scan"):
        write_outputs(fake_result(), tmp_path / "out", ("json", "sr"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("highdicom", "onnxruntime"):
        pytest.importorskip(package)
    arguments = ["demo", "--out", str(tmp_path), "--engine", "onnx-cpu", "--write", "json,sr,sc,stl", "--json", "-q"]
    assert cli.main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    names = {Path(path).name for path in report["outputs"]}
    assert names == {"result.json", "spine.sr.dcm", "preview.sc.dcm", "spine.stl"}


@pytest.mark.slow
def test_the_command_says_why_an_image_without_header_has_no_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], demo_result: SpineResult
) -> None:
    pytest.importorskip("highdicom", reason="pip install '.[dicom]'")
    np.save(tmp_path / "body.npy", demo_result.scan.pixels)
    spacing = ",".join(map(str, demo_result.scan.pixel_spacing_mm))
    arguments = ["run", str(tmp_path / "body.npy"), "--out", str(tmp_path / "out"), "--pixel-spacing", spacing]
    assert cli.main([*arguments, "--engine", "onnx-cpu", "--write", "json,sr", "--json", "-q"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["status"], report["code"], report["outputs"]) == ("failed", None, [])
    assert report["message"] == "body.npy: a DICOM result needs a DICOM scan"
    assert not list((tmp_path / "out").glob("*/*"))


@pytest.mark.slow
def test_json_alone_loads_nothing_that_draws(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="an engine is needed: pip install '.[cpu]'")
    code = (
        "import sys; from edge_spine.cli.main import main\n"
        f"assert main(['demo', '--engine', 'onnx-cpu', '--write', 'json', '--out', {str(tmp_path)!r}]) == 0\n"
        "drawing = ('preview_png', 'report_html', 'report_pdf', 'glb', 'structured_report', 'drawing', 'dicom')\n"
        "print([name for name in drawing if f'edge_spine.outputs.{name}' in sys.modules])\n"
        "print([name for name in ('highdicom', 'reportlab', 'trimesh') if name in sys.modules])\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout.splitlines()[-2:] == ["[]", "[]"]


def test_formats_are_parsed_in_a_fixed_order() -> None:
    assert parse_formats("png, json,PNG") == ("json", "png")
    assert parse_formats("stl,png,ply,json") == (*DEFAULT_FORMATS, "stl")


@pytest.mark.parametrize("names", ["json,docx", "", " , "])
def test_an_unknown_format_is_named_with_the_known_ones(names: str) -> None:
    with pytest.raises(UsageError, match="json, ply, png") as caught:
        parse_formats(names)
    if "docx" in names:
        assert "'docx'" in str(caught.value)


def test_all_outputs_are_written_and_timed(tmp_path: Path, valid: jsonschema.Draft202012Validator) -> None:
    folder = tmp_path / "new" / "scan"
    result, paths = write_outputs(fake_result(), folder)
    assert sorted(path.name for path in paths) == sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in paths) == ["preview.png", "result.json", "spine.ply"]
    written = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    valid.validate(written)
    assert 0 < written["timing_ms"]["write"] < result.timing_ms["write"]
    assert result.timing_ms["total"] == pytest.approx(result.timing_ms["write"])


def test_only_what_is_asked_for_is_written_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("old", encoding="utf-8")
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    _, paths = write_outputs(fake_result(), tmp_path, ["json"])
    assert paths == [tmp_path / "result.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "result.json"]
    assert json.loads(paths[0].read_text(encoding="utf-8"))["timing_ms"]["write"] < 50


def test_a_failed_write_leaves_the_old_files_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")
    real_write = Path.write_bytes

    def full_disk(path: Path, content: bytes) -> int:
        if path.name.startswith(".b"):
            real_write(path, content[:1])
            raise OSError(28, "No space left on device")
        return real_write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        atomic.write_files(tmp_path, {"a": b"new", "b": b"new"})
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
    with pytest.raises(OSError, match="No space"):
        atomic.write_files(tmp_path / "made", {"a": b"new", "b": b"new"})
    assert not (tmp_path / "made").exists()


def test_an_interruption_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path, content: bytes) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_files(tmp_path / "made", {"a": b"new"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("asked", "words"), [(False, "FAKE.dcm"), (True, "FAKE.dcm, 2023-02-28")])
def test_the_date_of_the_scan_is_written_only_where_it_is_asked_for(asked: bool, words: str, tmp_path: Path) -> None:
    header = Dataset()
    header.StudyDate = "20230228"
    _, (path,) = outputs.write_outputs(fake_result(header=header), tmp_path, ("html",), show_date=asked)
    page = path.read_text(encoding="utf-8")
    assert f">{words}</p>" in page and ("2023" in page.split("<script")[0].split("</style>")[1]) is asked
