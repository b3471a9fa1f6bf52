"""Pin what edge-spine needs, and check that it can be installed from the pins alone.

`python .ci/supply.py lock`: write .ci/constraints/*.txt, every package of every extra of the runtime with its
hashes, for Python 3.10 to 3.14 on Linux, Windows and macOS at once.
`python .ci/supply.py resolve`: check that each pinned package has a wheel for each platform and Python.
`python .ci/supply.py install [EXTRA ...]`: download the pinned wheels, install them and edge-spine into a new
environment without an index, run `edge-spine demo` there, and write artifacts/sbom.cdx.json (CycloneDX).

Needs uv, and `install` cyclonedx-bom: `pip install uv cyclonedx-bom`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".ci" / "constraints"
EXTRAS = ("cpu", "openvino", "cuda", "codecs", "dicom", "report", "node", "batch", "ray", "dask")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
# OpenVINO asks for glibc 2.35 on aarch64, ONNX Runtime for macOS 14.
MACOS = "14.0"
PLATFORMS = (
    "x86_64-manylinux_2_28",
    "aarch64-manylinux_2_35",
    "x86_64-pc-windows-msvc",
    "aarch64-apple-darwin",
)
# Extras without a wheel of some package, by (extra, platform, Python); "" stands for any. Checked in both directions.
MISSING = {
    ("cuda", "aarch64-manylinux_2_35", "3.10"): "onnxruntime-gpu 1.23 has none for aarch64",
    ("cuda", "aarch64-apple-darwin", ""): "no CUDA on macOS",
    ("dicom", "", "3.14"): "highdicom asks for pyjpegls, which is compiled there",
    ("node", "", "3.14"): "the same",
    ("cuda", "x86_64-pc-windows-msvc", "3.10"): "nvidia-cublas-cu12 12.9.3 has none for Windows",
}
_HEAD = "# Written by `python .ci/supply.py lock`. Install: pip install --require-hashes -r .ci/constraints/cpu.txt\n"


def uv(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `uv pip compile` without printing what it found."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", *arguments]
    environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": MACOS}
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def compiled(extras: tuple[str, ...], *arguments: object) -> dict[str, str]:
    """Resolve extras for all platforms and Pythons; return the hashes of each pin, which may end in a condition."""
    wanted = [word for extra in extras for word in ("--extra", extra)]
    done = uv("pyproject.toml", "--universal", "--python-version", PYTHONS[0], *wanted, *arguments)
    if done.returncode:
        raise SystemExit(done.stderr)
    blocks = (block.partition("\n") for block in re.split(r"^(?=\S)", done.stdout, flags=re.MULTILINE)[1:])
    return {pin.removesuffix(" \\"): hashes for pin, _, hashes in blocks}


def lock() -> int:
    """Write a file for what each extra adds to base.txt, all from one resolution."""
    pins = compiled(EXTRAS, "--generate-hashes")
    hashes = {pin.split()[0]: lines for pin, lines in pins.items()}
    with tempfile.TemporaryDirectory() as folder:
        (chosen := Path(folder) / "pins.txt").write_text("\n".join(pins), encoding="utf-8")
        base = compiled((), "--constraint", chosen)
        added = {extra: compiled((extra,), "--constraint", chosen).keys() - base for extra in EXTRAS}
    FOLDER.mkdir(exist_ok=True)
    for extra, wanted in {"base": base.keys(), **added}.items():
        text = _HEAD + ("" if extra == "base" else "-r base.txt\n")
        text += "".join(f"{pin} \\\n{hashes[pin.split()[0]]}" for pin in sorted(wanted))
        (FOLDER / f"{extra}.txt").write_text(text, encoding="utf-8", newline="\n")
    return 0


def resolve() -> int:
    """Look for a wheel of each pinned package; print what is missing and not known to be, or known and not missing."""
    wheels = ("--only-binary", ":all:", "--no-deps")

    def missing(extras: Iterable[str], platform: str, python: str) -> str:
        files = [FOLDER / f"{extra}.txt" for extra in extras]
        where = ("--python-platform", platform, "--python-version", python)
        done = uv(*files, *where, *wheels, "--offline")
        if not done.returncode:
            return ""
        said = done.stderr.strip() or f"uv ended with status {done.returncode}"
        if "there is no version of" in said:  # another answer than that of a version without a wheel
            raise SystemExit(f"{platform} {python}: not in the index that was fetched: {said}")
        return said

    def problems(case: tuple[str, str]) -> list[str]:
        known = [
            extra
            for extra in EXTRAS
            if any(all(a in ("", b) for a, b in zip(k, (extra, *case), strict=True)) for k in MISSING)
        ]
        found = [f"{extra}: is in MISSING and has all wheels" for extra in known if not missing((extra,), *case)]
        return found + [said for said in [missing(set(EXTRAS) - set(known), *case)] if said]

    # Fetch the index's page of every package once, into uv's cache, where the cases find it.
    every = [FOLDER / f"{extra}.txt" for extra in EXTRAS]
    fetched = uv(*every, "--universal", "--python-version", PYTHONS[0], *wheels)
    if fetched.returncode:
        raise SystemExit(fetched.stderr)
    cases = list(product(PLATFORMS, PYTHONS))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        each = zip(cases, pool.map(problems, cases), strict=True)
        found = [(" ".join(case), said) for case, all_said in each for said in all_said]
    for where, said in found:
        print(f"{where}: {said}")
    print(f"{len(cases)} platforms and Pythons, {len(EXTRAS)} extras: {len(found)} surprises")
    return int(bool(found))


def install(extras: tuple[str, ...]) -> int:
    """Install from hashes without an index, run the demonstration, and write the bill of materials."""
    requirements = [word for extra in extras for word in ("-r", FOLDER / f"{extra}.txt")]
    with tempfile.TemporaryDirectory() as name:
        wheels, place = Path(name) / "wheels", Path(name) / "env"
        venv.create(place)
        python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        offline = ("--isolated", "--python", python, "install", "--no-compile", "--no-index", "--find-links", wheels)
        for words in (
            ("wheel", "--no-deps", "--wheel-dir", wheels, ROOT),
            ("download", "--require-hashes", "--only-binary", ":all:", "--dest", wheels, *requirements),
            (*offline, "--require-hashes", *requirements),
            (*offline, f"edge-spine[{','.join(extras)}]"),
        ):
            subprocess.run([sys.executable, "-m", "pip", "--quiet", *words], check=True)
        subprocess.run([python, "-I", "-m", "edge_spine", "demo", "--out", Path(name) / "out"], check=True, cwd=name)
        listing = (sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", ROOT / "pyproject.toml")
        listed = subprocess.run([*listing, "--output-reproducible", python], check=True, capture_output=True).stdout
    (ROOT / "artifacts").mkdir(exist_ok=True)
    (ROOT / "artifacts/sbom.cdx.json").write_text(bill_of_materials(json.loads(listed)), encoding="utf-8")
    return 0


def bill_of_materials(listed: dict[str, Any]) -> str:
    """Return a list of packages (CycloneDX) with what the wheel itself brings: its models and three.js."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    version = re.search(r'"(.*)"', (ROOT / "edge_spine/version.py").read_text(encoding="utf-8").splitlines()[-1])
    listed["metadata"]["component"]["version"] = version[1] if version else ""
    viewer = json.loads((ROOT / "edge_spine/outputs/report/package-lock.json").read_text(encoding="utf-8"))
    three = viewer["packages"]["node_modules/three"]["version"]
    brought = [{"type": "library", "name": "three", "version": three, "purl": f"pkg:npm/three@{three}"}]
    for path in sorted((ROOT / "edge_spine/models").glob("*/manifest.json")):
        model, digest = json.loads(path.read_text(encoding="utf-8")), hashlib.sha256(path.read_bytes()).hexdigest()
        hashes = [{"alg": "SHA-256", "content": digest}]
        named = {"name": model["name"], "version": model["version"]}
        brought.append({"type": "machine-learning-model", **named, "hashes": hashes})
    listed["components"] += [{**each, "bom-ref": f"{each['name']}@{each['version']}"} for each in brought]
    text = json.dumps(listed, indent=1) + "\n"
    if problem := JsonStrictValidator(SchemaVersion.from_version(listed["specVersion"])).validate_str(text):
        raise SystemExit(f"the bill of materials is not valid: {problem}")
    return text


def main() -> int:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("lock", "resolve", "install"))
    parser.add_argument("extras", nargs="*", choices=[*EXTRAS, []], metavar="EXTRA", help="to install (default: cpu)")
    options = parser.parse_args()
    if options.command == "install":
        return install(tuple(options.extras) or ("cpu",))
    return lock() if options.command == "lock" else resolve()


if __name__ == "__main__":
    sys.exit(main())
