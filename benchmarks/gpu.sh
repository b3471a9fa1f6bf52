#!/usr/bin/env bash
# Measure on another Linux machine with an NVIDIA GPU: no package index, little time, commands that end after minutes.
#
#   benchmarks/gpu.sh --pack EXTRA PIECES [PYTHON_VERSION]   here: fetch packages, cut everything into pieces
#   benchmarks/gpu.sh WORK OUT [SECONDS] [PIECES]            there: take pieces in, measure; again to go on
#   benchmarks/gpu.sh --plan [SECONDS]                       anywhere: which steps fit into that time, and how long each takes
#
# EXTRA holds what PyPI has no wheels of, for the machine and PYTHON_VERSION (default 3.10), and reaches WORK as it is:
#   *.whl         PyCUDA, built against that Python, see edge_spine/engines/README.md; a TensorRT
#   packages/     packages as files, which are on Python's path; with packages/numpy there nothing is fetched from PyPI
#   python/       a relocatable CPython, where the machine's own will not do
#   stubs/        libraries that others link and never call
#   bundle/       a model to measure in place of the packaged one
#   environment   lines NAME=VALUE, set for every step
#   prepare       a program that is run once there, with WORK
# PIECES may be carried over in several calls, in any order and number. WORK keeps pieces, packages, plans and results
# between calls; a step that has ended is not run again, and one that does not fit into the time left gives way to those that
# do. OUT gets summary.txt and results.tar.gz after every step. RUNS and RUN_SECONDS shorten the latency steps.
# Exit status 0: every step has ended well. 1: all have ended, some badly. 75: call again, steps or pieces are missing.
set -euo pipefail

# What edge_spine, its tests and the peers need at run time; pip adds what these need.
packages=(
    numpy opencv-python-headless pydicom pyjpegls pylibjpeg pylibjpeg-openjpeg
    onnx onnxruntime filelock platformdirs nvidia-ml-py pytest jsonschema
    pytools mako siphash24 # of PyCUDA
    exceptiongroup tomli # of pytest on Python 3.10, which pip leaves out where it runs on a newer one
)
piece_mib=${PIECE_MIB:-60}
here=$(cd "$(dirname "$0")/.." && pwd)

pack() {
    local extra=$1 pieces=$2 version=${3:-3.10} folder wheels
    mkdir -p "$pieces"
    folder=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$folder'" EXIT
    cp -r "$extra"/. "$folder/"
    wheels=("$folder"/*.whl)
    if [ -e "${wheels[0]}" ]; then
        install_into "$folder/packages" "$version" --no-deps "${wheels[@]}"
        rm "${wheels[@]}"
    fi
    [ -d "$folder/packages/pycuda" ] || { echo "no PyCUDA in $extra" >&2; exit 2; }
    [ -d "$folder/packages/numpy" ] || install_into "$folder/packages" "$version" "${packages[@]}"
    tar -cf - -C "$folder" . | xz -T0 "${PACK_LEVEL:--6}" | split -b "${piece_mib}m" -d -a 3 - "$pieces/piece-"
    (cd "$pieces" && sha256sum piece-* > pieces.sha256)
    echo "$(wc -l < "$pieces/pieces.sha256") pieces of $piece_mib MiB in $pieces"
}

install_into() {
    local target=$1 version=$2
    shift 2
    python3 -m pip install --quiet --no-compile --target "$target" --only-binary=:all: --python-version "$version" \
        --implementation cp --platform linux_x86_64 --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
        --platform manylinux_2_24_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
        --platform manylinux1_x86_64 "$@"
}

# Whether all pieces are here and whole; then they are unpacked and prepared.
take_in() {
    if [ -d "${1:-}" ]; then
        cp "$1"/* "$work/pieces/"
    fi
    if [ -e "$work/unpacked" ]; then
        return
    fi
    if ! (cd "$work/pieces" && [ -s pieces.sha256 ] && sha256sum --quiet -c pieces.sha256 > /dev/null 2>&1); then
        echo "pieces here: $(find "$work/pieces" -name 'piece-*' | wc -l); more are needed, call again" | tee "$out/summary.txt"
        exit 75
    fi
    # not every machine has xz
    cat "$work"/pieces/piece-* | python3 -c '
import sys, tarfile
tarfile.TarFile.extraction_filter = staticmethod(lambda member, path: member)
tarfile.open(fileobj=sys.stdin.buffer, mode="r|xz").extractall(sys.argv[1])' "$work"
    local left=$((deadline - $(date +%s)))
    if [ -x "$work/prepare" ] && ! within $((left > 1 ? left : 1)) "$work/prepare" "$work" > "$results/prepare.log" 2>&1; then
        tail -n 3 "$results/prepare.log"
        save
        exit 1
    fi
    rm -f "$work"/pieces/piece-*
    touch "$work/unpacked"
}

# Run a program for so many seconds at most: what ignores that it is stopped, as one that waits for a driver, is killed.
within() {
    timeout --kill-after=5 "$@"
}

# Run a step once, in the time that is left; its output goes to a log of its own.
#   step NAME EXPECTED MOST COMMAND...    with fewer than EXPECTED seconds left it is not begun, after MOST it is stopped
step() {
    local name=$1 expected=$2 most=$3 status=0 left limit started
    shift 3
    if [ -n "$planning" ]; then
        plan "$name" "$expected"
        return
    fi
    [ -e "$work/ended/$name" ] && return
    left=$((deadline - $(date +%s)))
    if [ "$left" -lt "$expected" ]; then
        echo "$name: $left s left, it needs $expected; call again"
        waiting=1
        return
    fi
    limit=$((left < most ? left : most))
    started=$(date +%s)
    within "$limit" "$@" > "$results/$name.log" 2>&1 || status=$?
    # killed, as the status of 137 says, only after that limit
    if [ "$status" -eq 137 ] && [ $(($(date +%s) - started)) -ge "$limit" ]; then status=124; fi
    # stopped by the end of this call, not by its own limit: it is tried again in the next call, once
    if [ "$status" -eq 124 ] && [ "$limit" -lt "$most" ] && [ ! -e "$work/ended/$name.again" ]; then
        touch "$work/ended/$name.again"
        waiting=1
    else
        echo "$status" > "$work/ended/$name"
    fi
    echo "$name: status $status after $(($(date +%s) - started)) s; $(tail -n 1 "$results/$name.log" | cut -c 1-160)" |
        tee -a "$results/summary.txt"
    save
}

plan() {
    if [ "$2" -gt "$remaining" ]; then
        printf '%-15s %4d s, does not fit\n' "$1" "$2"
        return
    fi
    remaining=$((remaining - $2)) planned+=" $1 "
    printf '%-15s %4d s, ends after %4d s\n' "$1" "$2" $((seconds - remaining))
}

save() {
    cp "$results/summary.txt" "$out/summary.txt" 2> /dev/null || true
    cp "$work"/plans/*.json "$work"/plans/*.verdict "$results/" 2> /dev/null || true
    tar -czf "$out/.results" -C "$work" results && mv "$out/.results" "$out/results.tar.gz"
}

if [ "${1:-}" = --pack ]; then
    [ $# -ge 3 ] || { echo "usage: benchmarks/gpu.sh --pack EXTRA PIECES [PYTHON_VERSION]" >&2; exit 2; }
    pack "${@:2}"
    exit
fi
planning="" planned="" waiting=""
model=()

latency() {
    local name=$1
    shift
    step "$name" 40 150 python benchmarks/latency.py --engine tensorrt "${model[@]}" --runs "${RUNS:-100}" \
        --seconds "${RUN_SECONDS:-4}" --json "$results/$name.json" "$@"
}

# Whether a step has ended well: without a plan the next steps would build it again.
well() {
    if [ -n "$planning" ]; then [[ $planned == *" $1 "* ]]; else [ "$(cat "$work/ended/$1" 2> /dev/null)" = 0 ]; fi
}

# Whether blocks gain: otherwise their latency is that of single scans again.
blocks_are_kept() {
    [ -n "$planning" ] || grep -q '"blocks": {"block": \([2-9]\|1[0-9]\)' "$results/build-blocks.log"
}

# Build a plan, whose verdict compares it with PyTorch and ONNX Runtime, and time it.
form() {
    step "build-$1" "$2" "$3" python -m edge_spine build -v --precision "$1" --json "${model[@]}"
    if well "build-$1"; then latency "latency-$1" --precision "$1"; fi
}

# The most valuable first. On an H100 with TensorRT 8.6 the INT8 plan took 211 s, and a float16 plan more than 72 s; the other
# times are estimates.
all_steps() {
    step doctor 15 60 python -m edge_spine doctor --json "${model[@]}"
    form int8 215 420
    # they take the packaged model, whose plan is there unless another was measured
    if well build-int8 && [ ! -d "$work/bundle" ]; then
        step tests 45 180 python -m pytest -m gpu -q -p no:cacheprovider tests/edge_spine/engines/tensorrt
    fi
    form fp16 180 420
    # one plan for single scans and blocks of 8, kept if it gains; then the throughput with it
    if well build-int8; then
        step build-blocks 300 570 python -m edge_spine build -v --precision int8 --blocks 8 --json "${model[@]}"
    fi
    if well build-blocks && blocks_are_kept; then latency latency-blocks --precision int8; fi
    local peers=(--runs "${RUNS:-100}" --json "$results/peers.json") each
    [ -d "$work/bundle" ] && peers+=(--weights "$here/export/weights/spine.safetensors")
    # a peer without a plan would build one
    for each in int8 fp16; do
        if well "build-$each"; then peers+=(--only "tensorrt $each"); fi
    done
    for each in onnx PyTorch ONNX OpenVINO floor; do peers+=(--only "$each"); done
    step peers 100 300 python benchmarks/peers.py "${model[@]}" "${peers[@]}"
    form fp32 150 300
}
if [ "${1:-}" = --plan ]; then
    planning=1 seconds=${2:-570} remaining=${2:-570} work=/nonexistent results=/nonexistent
    all_steps
    exit
fi
[ $# -ge 2 ] || { echo "usage: benchmarks/gpu.sh WORK OUT [SECONDS] [PIECES]" >&2; exit 2; }
mkdir -p "$1/pieces" "$1/ended" "$1/results" "$1/home" "$1/bin" "$2"
work=$(cd "$1" && pwd) out=$(cd "$2" && pwd)
results=$work/results deadline=$(($(date +%s) + ${3:-570}))
touch "$results/summary.txt"
take_in "${4:-}"

python=$(command -v python3)
[ -x "$work/python/bin/python3" ] && python=$work/python/bin/python3
# a link would hide the folder of a virtual environment
printf '#!/bin/sh\nexec "%s" "$@"\n' "$python" > "$work/bin/python"
chmod +x "$work/bin/python"
if [ -e "$work/environment" ]; then
    set -a
    # shellcheck disable=SC1091
    . "$work/environment"
    set +a
fi
libraries=$(find "$work/packages" -name '*.so*' \( -path '*/nvidia/*' -o -path '*/tensorrt*/*' \) -printf '%h\n' |
    sort -u | paste -sd: -)
export LD_LIBRARY_PATH="$libraries:$work/python/lib:$work/stubs:${LD_LIBRARY_PATH:-}"
export PYTHONPATH="$here:$work/packages" EDGE_SPINE_CACHE="$work/plans" PATH="$work/bin:$PATH" HOME="$work/home"
export PYTHONUNBUFFERED=1
[ -d "$work/bundle" ] && model=(--model "$work/bundle")
cd "$here"
within "${PROBE_SECONDS:-20}" nvidia-smi > "$results/nvidia-smi.txt" 2>&1 || true

all_steps
[ -z "$waiting" ] || exit 75
[ -z "$(cat "$work"/ended/* | grep -v '^0$')" ]
