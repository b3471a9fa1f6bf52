"""Load a model bundle: a folder whose manifest lists every file with its size and SHA-256.

Files are parsed only after their hash has been checked. The hashes detect damage and mix-ups; they are no signature.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from edge_spine.bundle.bands import BandCalibration, PopulationRange
from edge_spine.bundle.blocks import BLOCKS, block_problem, parsed_angles, parsed_bands, parsed_population
from edge_spine.bundle.rules import FILLED, TEXT, Rule, between, broken_rule, count, exactly
from edge_spine.errors import BundleError
from edge_spine.locate import LevelNetwork, read_level_network
from edge_spine.measure import AngleErrors
from edge_spine.refine import Refinement, read_refinement

MANIFEST, CARD = "manifest.json", "card.md"
# the models that come with the package, and their folders
MODELS = {"spine": "spine", "lite": "spine-lite"}
DEFAULT_MODEL = "spine"
SCHEMA = "edge-spine/bundle/1"
# a pickle or a TensorRT plan could run code, so a bundle may not hold one
ROLE_SUFFIXES = {
    "engine": ".onnx",
    "float": ".onnx",
    "localiser": ".onnx",
    "refinement": ".npz",
    "levels": ".npz",
    "references": ".npz",
    "card": ".md",
}
_MANIFEST_LIMIT = 1 << 20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PIXEL = "nominal_model_pixel_mm"
_RULES = {
    **dict.fromkeys(("name", "version", "architecture", "training", "licence"), TEXT),
    **dict.fromkeys(("preprocessing", "layout", "files", "calibration", "accuracy"), FILLED),
}
_FILE_RULES = {
    "sha256": Rule(
        lambda value: isinstance(value, str) and _SHA256.fullmatch(value) is not None,
        "64 lower-case hexadecimal digits",
    ),
    "size": count("bytes"),
    "role": exactly(*ROLE_SUFFIXES),
    "precision": TEXT,
}


@dataclass(frozen=True)
class Bundle:
    """A model bundle: a folder of files that were checked against its manifest.

    `sha256`, that of manifest.json, identifies the whole bundle.
    """

    folder: Path
    manifest: Mapping[str, Any]
    sha256: str
    # contents that `load_bundle` has checked, each until its first `read`
    _checked: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Name of the model."""
        return str(self.manifest["name"])

    @property
    def version(self) -> str:
        """Version of the model."""
        return str(self.manifest["version"])

    @property
    def nominal_model_pixel_mm(self) -> float:
        """Typical side of a crop pixel, mm, to convert errors in pixels."""
        return float(self.manifest["preprocessing"]["nominal_model_pixel_mm"])

    @property
    def bands(self) -> BandCalibration | None:
        """The calibrated 90 % bands of the centres, or None where the bundle has none."""
        return parsed_bands(self.manifest["bands"]) if "bands" in self.manifest else None

    @property
    def population(self) -> PopulationRange | None:
        """Range of the side view in the training set, crop pixels, or None where the bundle has none."""
        return parsed_population(self.manifest["population"]) if "population" in self.manifest else None

    @property
    def angle_errors(self) -> AngleErrors | None:
        """Calibrated errors of the angles, or None where the bundle has none."""
        return parsed_angles(self.manifest["angles"]) if "angles" in self.manifest else None

    @property
    def level_network(self) -> LevelNetwork | None:
        """Weights of the network that finds the vertebrae, or None where the bundle has none."""
        return read_level_network(self.read(self.file_with_role("levels"))) if self.has_role("levels") else None

    @property
    def refinement(self) -> Refinement | None:
        """Weights of the coronal refinement, or None where the bundle has none."""
        return read_refinement(self.read(self.file_with_role("refinement"))) if self.has_role("refinement") else None

    @property
    def exact_readers(self) -> tuple[str, ...]:
        """Nodes of TensorRT's INT8 form that read activations in float, see `engines.tensorrt.symmetric`."""
        return tuple(self.manifest.get("forms", {}).get("int8-trt", {}).get("exact", ()))

    def has_role(self, role: str) -> bool:
        """Return whether a file has a role."""
        return any(entry["role"] == role for entry in self.manifest["files"].values())

    def file_with_role(self, role: str) -> str:
        """Return the name of the one file with one of the `ROLE_SUFFIXES`; raise BundleError where there is none."""
        for name, entry in self.manifest["files"].items():
            if entry["role"] == role:
                return str(name)
        raise BundleError(f"{_shown(self.folder)}: the bundle has no file with the role {role!r}")

    def precision(self, name: str) -> str:
        """Return the precision of a file as the manifest states it, such as "int8"."""
        return str(self._entry(name)["precision"])

    def read(self, name: str) -> bytes:
        """Return the bytes of a file after checking its size and its SHA-256.

        The first call returns the bytes that `load_bundle` checked; later calls read and check the file again.
        Raise BundleError where the manifest does not list the file, or the file is missing or differs from it.
        """
        entry = self._entry(name)
        checked = self._checked.pop(name, None)
        if checked is not None:
            return checked
        path = self.folder / name
        content = _read(path, range(entry["size"], entry["size"] + 1), f"{entry['size']} expected by the manifest")
        found = hashlib.sha256(content).hexdigest()
        if found != entry["sha256"]:
            raise BundleError(
                f"{_shown(path)}: SHA-256 {found[:12]}... found, {entry['sha256'][:12]}... expected "
                "by the manifest; the file is damaged or belongs to another bundle"
            )
        return content

    def _entry(self, name: str) -> Mapping[str, Any]:
        files: Mapping[str, Mapping[str, Any]] = self.manifest["files"]
        if name not in files:
            raise BundleError(f"{_shown(self.folder)}: the manifest lists no file {name!r}")
        return files[name]


def load_bundle(folder: str | os.PathLike[str] | None = None) -> Bundle:
    """Open a model bundle and check the size and the hash of every file of it.

    Parameters
    ----------
    folder : str or path, optional
        The bundle, or the name of one that comes with the package (`MODELS`); "spine" where it is not given. A folder
        of such a name is given by its path, such as "./lite".

    Raises
    ------
    BundleError
        A file is missing, damaged or wrongly listed; the message names it.
    """
    place = _place(DEFAULT_MODEL if folder is None else folder)
    if not place.is_dir():
        raise BundleError(f"{place}: no such model bundle; a folder with a {MANIFEST} is expected")
    path = place / MANIFEST
    content = _read(path, range(_MANIFEST_LIMIT + 1), f"a manifest has at most {_MANIFEST_LIMIT}")
    bundle = Bundle(place, parse_manifest(content, _shown(path)), hashlib.sha256(content).hexdigest())
    for name in bundle.manifest["files"]:
        bundle._checked[name] = bundle.read(name)
    return bundle


def manifest_bytes(fields: Mapping[str, Any]) -> bytes:
    """Return the file content of a manifest, with the SHA-256 of its own content added.

    The layout of the text is fixed (sorted keys, one indent, UTF-8, line feeds), so that every changed byte is
    detected. A ``manifest_sha256`` that is there already is replaced. Raise ValueError where a value is not JSON.
    """
    content = {key: value for key, value in fields.items() if key != "manifest_sha256"}
    return _canonical({**content, "manifest_sha256": _seal(content)})


def parse_manifest(content: bytes, shown: str = MANIFEST) -> dict[str, Any]:
    """Parse the content of a manifest, called `shown` in messages; raise BundleError where it is not valid."""

    def refuse(reason: str) -> NoReturn:
        raise BundleError(f"{shown}: {reason}")

    try:
        manifest = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        refuse("not readable as JSON; the file is damaged")
    if not isinstance(manifest, dict):
        refuse("a JSON object is expected")
    if manifest.get("schema") != SCHEMA:
        refuse(f"schema {_brief(manifest.get('schema'))} found, {SCHEMA!r} expected")
    for key in (*_RULES, "manifest_sha256"):
        if key not in manifest:
            refuse(f"the key {key!r} is missing")
    if problem := broken_rule(manifest, _RULES):
        refuse(problem)
    pixel = {_PIXEL: None, **manifest["preprocessing"]}
    if problem := broken_rule(pixel, {_PIXEL: between(0, 100)}):
        refuse(f"'preprocessing': {problem}")
    if "refine" in manifest:
        refuse("'refine': refined as releases before 0.4.1 did, which this one cannot; export the model again")
    for key in BLOCKS:
        if key in manifest and (problem := block_problem(key, manifest[key])):
            refuse(f"{key!r}: {problem}")
    if problem := _forms_problem(manifest.get("forms", {})):
        refuse(f"'forms': {problem}")
    for name, entry in manifest["files"].items():
        if problem := _entry_problem(name, entry):
            refuse(f"file {_brief(name)}: {problem}")
    roles = [entry["role"] for entry in manifest["files"].values()]
    for role in ROLE_SUFFIXES:
        if roles.count(role) > 1:
            refuse(f"{roles.count(role)} files have the role {role!r}, one is expected")
    for role in ("engine", "references"):
        if role not in roles:
            refuse(f"no file has the role {role!r}")
    sealed = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    try:
        whole = manifest["manifest_sha256"] == _seal(sealed) and content == _canonical(manifest)
    except ValueError:
        whole = False
    if not whole:
        refuse("changed after it was written: its content does not match its manifest_sha256")
    return manifest


def _forms_problem(forms: object) -> str | None:
    if not isinstance(forms, dict) or not all(isinstance(form, dict) for form in forms.values()):
        return "an object of objects is expected"
    exact = forms.get("int8-trt", {}).get("exact", [])
    if not isinstance(exact, list) or not all(isinstance(name, str) for name in exact):
        return "'exact' must be a list of node names"
    return None


def _entry_problem(name: str, entry: object) -> str | None:
    if not _PLAIN_NAME.fullmatch(name) or name == MANIFEST:
        return "a plain file name without folders is expected"
    if not isinstance(entry, dict) or not set(_FILE_RULES) <= set(entry):
        return "'sha256', 'size', 'role' and 'precision' are expected"
    if problem := broken_rule(entry, _FILE_RULES):
        return problem
    if not name.endswith(ROLE_SUFFIXES[entry["role"]]):
        return f"a file with the role {entry['role']!r} must end in {ROLE_SUFFIXES[entry['role']]}"
    return None


def _canonical(manifest: Mapping[str, Any]) -> bytes:
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8")


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(content)).hexdigest()


def _place(folder: str | os.PathLike[str]) -> Path:
    if isinstance(folder, str) and folder in MODELS:
        return Path(str(importlib.resources.files("edge_spine"))) / "models" / MODELS[folder]
    return Path(folder)


def _read(path: Path, sizes: range, wanted: str) -> bytes:
    """Return the bytes of a file, and refuse one of another size without reading it."""
    try:
        if (size := path.stat().st_size) not in sizes:
            raise BundleError(f"{_shown(path)}: {size} bytes found, {wanted}")
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{_shown(path)}: {error.strerror or 'cannot be read'}") from None


def _shown(path: Path) -> str:
    return f"{path.parent.name}/{path.name}" if path.parent.name else path.name


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
