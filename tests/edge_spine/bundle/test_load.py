"""A bundle is whole or refused: every file, every byte, before anything is parsed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_spine.bundle import load_bundle
from edge_spine.bundle.load import parse_manifest
from edge_spine.engines.verification import read_references
from edge_spine.errors import BundleError
from tests.edge_spine.bundle.changing import refusal, rewrite


def test_a_whole_bundle(folder: Path) -> None:
    bundle = load_bundle(folder)
    raw = (folder / "manifest.json").read_bytes()
    assert (bundle.name, bundle.version, bundle.nominal_model_pixel_mm) == ("FAKE", "0", 2.2)
    assert bundle.sha256 == hashlib.sha256(raw).hexdigest()
    name = bundle.file_with_role("engine")
    assert bundle.read(name) == (folder / name).read_bytes()
    assert bundle.precision(name) == "float32"
    crops, outputs = read_references(bundle)
    assert crops.shape == (2, 224, 224) and outputs.shape == (2, 1254)


@pytest.mark.hazard("bundle-changed")
def test_every_file_is_hashed_once_on_the_way_into_an_estimator(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_spine import SpineEstimator

    hashed: list[int] = []
    real = hashlib.sha256

    def counting(content: bytes = b"") -> Any:
        hashed.append(len(content))
        return real(content)

    monkeypatch.setattr("edge_spine.bundle.load.hashlib.sha256", counting)
    SpineEstimator("onnx-cpu", folder).close()
    files = [path.stat().st_size for path in folder.iterdir() if path.name != "manifest.json"]
    assert sorted(size for size in hashed if size in files) == sorted(files)


@pytest.mark.hazard("bundle-changed")
@pytest.mark.parametrize("name", ["model.fake.onnx", "localiser.onnx", "references.npz"])
@pytest.mark.parametrize("place", [0, 0.5, -1])
def test_one_flipped_bit_in_a_file(folder: Path, name: str, place: float) -> None:
    content = bytearray((folder / name).read_bytes())
    content[int(place * len(content)) if place > 0 else int(place)] ^= 1
    (folder / name).write_bytes(content)
    message = refusal(folder)
    assert name in message and hashlib.sha256(content).hexdigest()[:12] in message


@pytest.mark.hazard("bundle-changed")
def test_every_byte_of_the_manifest_counts(folder: Path) -> None:
    raw = (folder / "manifest.json").read_bytes()
    assert parse_manifest(raw)["name"] == "FAKE"
    for place in range(len(raw)):
        for bit in (1, 0x20, 0x80):
            changed = bytearray(raw)
            changed[place] ^= bit
            with pytest.raises(BundleError):
                parse_manifest(bytes(changed))
    for changed in (raw[:-1], raw + b"\n", raw.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + raw):
        with pytest.raises(BundleError):
            parse_manifest(changed)


@pytest.mark.hazard("bundle-changed")
def test_missing_and_truncated_files(folder: Path) -> None:
    name = "localiser.onnx"
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    assert f"{len(content) - 1} bytes found, {len(content)} expected" in refusal(folder)
    (folder / name).unlink()
    assert name in refusal(folder)
    (folder / "manifest.json").unlink()
    assert "manifest.json" in refusal(folder)
    assert "no such model bundle" in refusal(folder / "nowhere")


@pytest.mark.hazard("bundle-changed")
def test_a_file_exchanged_after_loading_is_noticed(folder: Path) -> None:
    bundle = load_bundle(folder)
    name = bundle.file_with_role("engine")
    checked = (folder / name).read_bytes()
    content = bytearray(checked)
    content[100] ^= 4
    (folder / name).write_bytes(content)
    # the bytes that were checked, not those that lie there now
    assert bundle.read(name) == checked
    with pytest.raises(BundleError, match="SHA-256"):
        bundle.read(name)
    with pytest.raises(BundleError, match="lists no file"):
        bundle.read("manifest.json")


@pytest.mark.hazard("bundle-changed")
@pytest.mark.parametrize(
    "name",
    ["../model.onnx", "a/b.onnx", "a\\b.onnx", "C:evil.onnx", "/etc/x.onnx", ".hidden.onnx", "", "manifest.json"],
)
def test_names_stay_in_the_folder(folder: Path, name: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"].pop("localiser.onnx")

    rewrite(folder, change)
    assert "plain file name" in refusal(folder)


@pytest.mark.hazard("bundle-changed")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema="edge-spine/bundle/2"), "edge-spine/bundle/2"),
        (lambda m: m.pop("training"), "'training' is missing"),
        (lambda m: m.update(licence=" "), "'licence' must be a text"),
        (lambda m: m.update(files={}), "'files' must be an object"),
        (lambda m: m.update(preprocessing={"x": 1}), "nominal_model_pixel_mm"),
        (lambda m: m["files"]["localiser.onnx"].pop("size"), "are expected"),
        (lambda m: m["files"]["localiser.onnx"].update(size="7"), "'size' must"),
        (lambda m: m["files"]["localiser.onnx"].update(size=True), "'size' must"),
        (lambda m: m["files"]["localiser.onnx"].update(sha256="AB" * 32), "'sha256' must"),
        (lambda m: m["files"]["localiser.onnx"].update(role="plan"), "'role' must be 'engine' or"),
        (lambda m: m["files"]["localiser.onnx"].update(role=["engine"]), "'role' must be"),
        (lambda m: m["files"]["localiser.onnx"].update(role="engine"), "2 files have the role 'engine'"),
        (lambda m: m["files"].pop("references.npz"), "no file has the role 'references'"),
        (lambda m: m["files"].update({"a.pkl": m["files"].pop("localiser.onnx")}), "must end in .onnx"),
        (lambda m: m.update(refine={"schema": "edge-spine/refine/1"}), "as releases before 0.4.1 did"),
    ],
)
def test_a_manifest_that_is_wrong_is_named(folder: Path, change: Any, message: str) -> None:
    rewrite(folder, change)
    assert message in refusal(folder)


@pytest.mark.hazard("bundle-changed")
@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"schema": NaN}'])
def test_files_that_are_no_manifest(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    refusal(folder)


@pytest.mark.hazard("bundle-changed")
def test_references_with_objects_are_refused(folder: Path) -> None:
    np.savez(folder / "references.npz", inputs=np.array([{"a": 1}]), outputs=np.zeros((1, 1254), np.float32))
    content = (folder / "references.npz").read_bytes()

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"]["references.npz"].update(sha256=hashlib.sha256(content).hexdigest(), size=len(content))

    rewrite(folder, change)
    with pytest.raises(BundleError, match=r"references\.npz is no \.npz file with inputs, outputs: Object arrays"):
        read_references(load_bundle(folder))
