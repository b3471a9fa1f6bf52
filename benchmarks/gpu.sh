#!/usr/bin/env bash
# On a bare Linux machine with an NVIDIA GPU: install from a folder, build, verify, run the GPU tests, time, write JSON.
#
#   benchmarks/gpu.sh WHEELS OUT
#
# WHEELS holds what cannot be fetched there, in pieces of any size (big.whl.part-00, big.whl.part-01, ... are joined):
#   *.whl              wheels for the Python used: numpy, opencv-python-headless, pydicom, onnx, protobuf, filelock,
#                      platformdirs, cuda-bindings, pycuda, pytest, and a TensorRT; perhaps onnxruntime-gpu and torch
#                      with their CUDA libraries, to time against
#   python.tar.*       a relocatable CPython, where the machine's own will not do (TensorRT 8.6.0 needs 3.10 or older)
#   tensorrt.tar.*     a folder `tensorrt` to put beside the wheels' packages, where TensorRT comes as bare libraries
#   stubs.tar.*        a folder `stubs` of libraries that TensorRT links and never calls
#   bundle.tar.*       a folder `bundle`, a model with a float file, for the forms that the packaged one lacks
# OUT gets peers.json, tests.txt and doctor.json. Nothing is installed outside a temporary folder.
set -euo pipefail

[ $# -eq 2 ] || { echo "usage: benchmarks/gpu.sh WHEELS OUT" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
wheels=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

command -v nvidia-smi > /dev/null && nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$out/gpu.txt"

mkdir "$work/files"
for file in "$wheels"/*; do
    case "$file" in
        *.part-*) cat "$file" >> "$work/files/$(basename "${file%.part-*}")" ;;
        *) ln -s "$file" "$work/files/" ;;
    esac
done
for archive in "$work"/files/*.tar.*; do
    [ -e "$archive" ] && tar -xf "$archive" -C "$work"
done

python=python3
[ -x "$work/python/bin/python3" ] && python="$work/python/bin/python3"
"$python" -m venv "$work/env"
export PATH="$work/env/bin:$PATH"
pip install --quiet --no-index --no-deps "$work"/files/*.whl
packages=$(python -c "import sysconfig; print(sysconfig.get_path('platlib'))")
[ -d "$work/tensorrt" ] && cp -r "$work/tensorrt" "$packages/"
libraries=$(find "$packages" -name '*.so*' -path '*nvidia*' -printf '%h\n' 2> /dev/null | sort -u | paste -sd: -)
export LD_LIBRARY_PATH="$packages/tensorrt:$work/stubs:$libraries:${LD_LIBRARY_PATH:-}"
export PYTHONPATH="$root" EDGE_SPINE_CACHE="$work/plans"
model=()
[ -d "$work/bundle" ] && model=(--model "$work/bundle")

cd "$root"
status=0
python -m edge_spine doctor --json > "$out/doctor.json" || status=1
python -m edge_spine build "${model[@]}" || status=1
python -m edge_spine verify --engine tensorrt "${model[@]}" || status=1
python -m pytest -m gpu -q tests/edge_spine/engines/tensorrt/test_engine.py > "$out/tests.txt" 2>&1 || status=1
tail -n 3 "$out/tests.txt"
[ -d "$work/bundle" ] && model+=(--weights "$root/export/weights/spine.safetensors")
python benchmarks/peers.py "${model[@]}" --json "$out/peers.json" || status=1
exit $status
