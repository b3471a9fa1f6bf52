#!/usr/bin/env bash
# Run what the runtime does on a Debian arm64 root under user-mode emulation, and the same on an amd64 root.
#
#   benchmarks/aarch64.sh WORK           from nothing, as root on Debian or Ubuntu on x86_64; 3 GB in WORK; again: go on
#   benchmarks/aarch64.sh --table WORK   print the table of the steps that have ended
#
# Fetches programs and two roots from Debian, and from PyPI the wheels that .ci/constraints pins. WORK/ARCH/log
# holds what each step printed, WORK/ARCH/out what it wrote. Steps use ONNX Runtime where they do not name OpenVINO.
# openvino-alone infers 32 times with OpenVINO and without edge-spine: where that crashes or does not end under emulation,
# OpenVINO cannot be tried there, and its steps count neither as passed nor as failed.
# Exit status: 0 all steps that can run passed; 1 not all; 77 this machine cannot emulate, with the reason.
set -euo pipefail

table() {
    python3 - "$1" <<'END'
import json
import signal
import sys
from pathlib import Path

LIMIT_MM = 0.1  # INT8 itself is that far from float32


def numbers(value):
    value = list(value.values()) if isinstance(value, dict) else value
    return [number for each in value for number in numbers(each)] if isinstance(value, list) else [value or 0]


def read(arch, step):
    root = Path(sys.argv[1], arch)
    seconds, status = map(int, (root / "ended" / step).read_text().split())
    printed = (root / "log" / step).read_text()
    files = [path for path in sorted((root / "out" / step).rglob("*")) if path.is_file() and path.name[0] != "."]
    curves = [json.loads(path.read_text())["curves"] for path in files if path.name == "result.json"]
    if step == "doctor":  # its status is 1 where an engine that `auto` would prefer crashes
        engines = json.loads(printed)["engines"]
        status = int(engines["onnx-cpu"] is not None)
        notes.append(f"doctor, {arch}: {engines['openvino'] or 'openvino runs'}")
    refused = "INT8 gives wrong results on this processor"  # x86 without VNNI, and ARM
    if step == "verify-openvino" and refused in (root / "log/verify-openvino.errors").read_text():
        status, printed = 0, refused
    if step.startswith("verify"):
        notes.append(f"{step}, {arch}: {printed}")
    found = numbers(curves)
    return seconds, status == 0 and all(path.stat().st_size for path in files), (len(files), len(found)), found


def not_emulated(step, native_good):
    """Whether a step needs OpenVINO, and OpenVINO alone was ended by a signal under emulation."""
    if step not in ("openvino-alone", "verify-openvino"):
        return False
    seconds, status = map(int, Path(sys.argv[1], "arm64/ended/openvino-alone").read_text().split())
    if status <= 128 or not native_good:
        return False
    if step == "openvino-alone":
        reached = Path(sys.argv[1], "arm64/log", step).read_text().splitlines() or ["nothing"]
        name = "stopped at its limit" if status == 128 + signal.SIGKILL else signal.Signals(status - 128).name
        notes.append(f"{step}, arm64: {name} after {seconds} s; the last that it printed is: {reached[-1]}")
    return True


failed, notes = [], []
print("| step | x86_64, s | aarch64, s | passed | largest difference, mm |\n|---|---|---|---|---|")
for step in Path(sys.argv[1], "steps").read_text().split():
    native_s, native_good, native_size, native = read("amd64", step)
    if not_emulated(step, native_good):
        print(f"| {step} | {native_s} | | cannot run under emulation | |")
        continue
    seconds, good, size, emulated = read("arm64", step)
    most = max((abs(a - b) for a, b in zip(native, emulated)), default=None)
    passed = native_good and good and native_size == size and (most or 0) <= LIMIT_MM
    failed += [] if passed else [step]
    difference = "" if most is None else f"{most:.4f}"
    print(f"| {step} | {native_s} | {seconds} | {'yes' if passed else 'NO'} | {difference} |")
print("", *notes, sep="\n")
sys.exit(bool(failed))
END
}

cannot() { echo "aarch64 cannot be emulated here: $1" >&2; exit 77; }

if [ "${1:-}" = --table ] && [ $# = 2 ]; then table "$2"; exit; fi
[ $# = 1 ] || { sed -n '2,11s/^# \?//p' "$0" >&2; exit 2; }
[ "$(id -u)" = 0 ] || cannot "only root can mount binfmt_misc and change its root"
# Mounts end with the script.
[ -n "${EDGE_SPINE_INSIDE:-}" ] || EDGE_SPINE_INSIDE=1 exec unshare --mount "$0" "$@"
binfmt=/proc/sys/fs/binfmt_misc
[ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt || cannot "binfmt_misc cannot be mounted"

here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
work=$(cd "$1" && pwd)
apt-get -o DPkg::Lock::Timeout=300 update -q > /dev/null
DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends \
    mmdebstrap debian-archive-keyring qemu-user-static dcmtk python3-venv > "$work/apt.log"
if [ ! -e $binfmt/qemu-aarch64 ]; then
    cat /usr/lib/binfmt.d/qemu-aarch64.conf > $binfmt/register || cannot "binfmt_misc takes no interpreter"
    trap 'echo -1 > $binfmt/qemu-aarch64' EXIT
fi

if [ ! -d "$work/wheel" ]; then
    python3 -m venv "$work/tools"
    "$work/tools/bin/pip" install --quiet uv
    "$work/tools/bin/uv" build --quiet --wheel --out-dir "$work/wheel" "$here"
fi
constraints=()
for extra in cpu openvino codecs dicom report node batch; do
    constraints+=(-r "$here/.ci/constraints/$extra.txt")
done

make_root() { # ARCH MACHINE
    local started=$SECONDS root=$work/$1 uv=("$work/tools/bin/uv" pip install --quiet --target "$work/$1.part/packages")
    if [ ! -d "$root" ]; then
        # packages are extracted, not configured, which takes minutes under emulation
        mmdebstrap --mode=root --architectures="$1" --variant=extract \
            --include=base-passwd,bash,coreutils,libc-bin,libstdc++6,python3 --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr bookworm "$root.part" 2> "$work/$1.log"
        cp "$root.part/usr/share/base-passwd/passwd.master" "$root.part/etc/passwd"
        "${uv[@]}" --python-platform "$2-manylinux_2_35" --python-version 3.11 --only-binary :all: --require-hashes \
            "${constraints[@]}"
        "${uv[@]}" --no-deps "$work"/wheel/*.whl
        mkdir -p "$root.part"/{ended,log,out,coded,watched}
        cp "$here/edge_spine/data/synthetic_whole_body.dcm" "$root.part/scan.dcm"
        dcmcjpeg "$root.part/scan.dcm" "$root.part/coded/jpeg_lossless.dcm"
        dcmcjpls "$root.part/scan.dcm" "$root.part/coded/jpeg_ls.dcm"
        dcmcrle "$root.part/scan.dcm" "$root.part/coded/rle.dcm"
        mv "$root.part" "$root"
        echo "root, $1: $((SECONDS - started)) s" >&2
    fi
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/dev/shm"
    mount --rbind /sys "$root/sys"
    if [ "$1" = arm64 ]; then sysfs "$root/sys"; fi
}

# What Linux shows of two Cortex-A76, as of a Raspberry Pi 5. ONNX Runtime crashes where it is shown the topology of an
# x86 processor, OpenVINO where it is shown none.
sysfs() { # FOLDER
    local cpus=$1/devices/system/cpu cpu name
    mount -t tmpfs tmpfs "$1"
    for cpu in 0 1; do
        mkdir -p "$cpus/cpu$cpu/topology" "$cpus/cpu$cpu/regs/identification"
        echo 0x00000000414fd0b1 > "$cpus/cpu$cpu/regs/identification/midr_el1"
        echo 0 > "$cpus/cpu$cpu/topology/physical_package_id"
        echo 0-1 | tee "$cpus"/{possible,present,online} > "$cpus/cpu$cpu/topology/core_siblings_list"
        echo 3 > "$cpus/cpu$cpu/topology/core_siblings"
        for name in core_id thread_siblings_list; do echo $cpu > "$cpus/cpu$cpu/topology/$name"; done
        echo $((cpu + 1)) > "$cpus/cpu$cpu/topology/thread_siblings"
    done
}

python() { # ARCH ARGUMENTS
    local names=(PATH=/usr/bin:/bin HOME=/root PYTHONPATH=/packages QEMU_CPU=cortex-a76)
    exec ${limit:+timeout --signal=KILL "$limit"} chroot "$work/$1" env -i "${names[@]}" python3 "${@:2}"
}

node() { # ARCH: C-ECHO and C-STORE by DCMTK; what is found goes to DCMTK's storescp
    local root=$work/$1 port=$((21000 + RANDOM % 8000)) receiver node status=0
    cat > "$root/node.toml" <<END
node = { ae_title = "EDGE_SPINE", port = $port, spool = "/spool", health_port = 0, engine = "onnx-cpu" }
peer = [{ ae_title = "ECHOSCU", address = "127.0.0.1" }, { ae_title = "STORESCU", address = "127.0.0.1" }]
destination = { ae_title = "ARCHIVE", host = "127.0.0.1", port = $((port + 1)) }
END
    rm -rf "$root/spool"
    storescp --promiscuous --output-directory "$root/out/node" $((port + 1)) & receiver=$!
    python "$1" -m edge_spine node --config /node.toml & node=$!
    { waited "$node" echoscu -aec EDGE_SPINE 127.0.0.1 "$port" &&
        storescu -aec EDGE_SPINE 127.0.0.1 "$port" "$root/scan.dcm" &&
        waited "$node" grep -q '"delivered"' "$root/spool/audit.jsonl"; } || status=1
    kill "$node" "$receiver"
    wait "$node" || status=1
    return $status
}

watch() { # ARCH
    cp "$work/$1/scan.dcm" "$work/$1/watched/"
    python "$1" -m edge_spine watch /watched /out/watch --once --engine onnx-cpu
}

alone='
import sys
sys.modules["openvino_telemetry"] = None  # it would report the import
import numpy, openvino
print("OpenVINO", openvino.__version__, "is imported", flush=True)
settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
request = openvino.Core().compile_model(sys.argv[1], "CPU", settings).create_infer_request()
print("the network is compiled", flush=True)
for number in range(32):
    request.infer({0: numpy.zeros((1, 3, 224, 224), numpy.float32)})
    print(number + 1, "of 32 inferences", flush=True)
'

openvino() { # ARCH
    local limit=2400
    # what OpenVINO alone cannot do is not asked of edge-spine
    if [ "$1" = arm64 ] && [ "$(cut -d ' ' -f 2 "$work/arm64/ended/openvino-alone")" -gt 128 ]; then return 0; fi
    python "$1" -m edge_spine verify --engine openvino
}

openvino_alone() { # ARCH
    local limit=600
    python "$1" -c "$alone" /packages/edge_spine/models/spine/model.int8.onnx
}

waited() { # PROCESS COMMAND...: until the command succeeds, while the process runs
    for _ in {1..900}; do
        if "${@:2}" 2> /dev/null; then return; fi
        kill -0 "$1" && sleep 1 || return 1
    done
    return 1
}

step() { # NAME COMMAND [ARGUMENT...]: on both machines; @ stands for the step's folder of results
    local name=$1 command=$2 arch started status
    for arch in amd64 arm64; do
        if [ -e "$work/$arch/ended/$name" ]; then continue; fi
        rm -rf "${work:?}/$arch/out/$name" && mkdir "$work/$arch/out/$name"
        started=$SECONDS status=0
        ("$command" "$arch" "${@:3}") > "$work/$arch/log/$name" 2> "$work/$arch/log/$name.errors" || status=$?
        echo "$((SECONDS - started)) $status" > "$work/$arch/ended/$name"
        echo "$name, $arch: $((SECONDS - started)) s, exit status $status" >&2
    done
    echo "$name" >> "$work/steps"
}

make_root amd64 x86_64
make_root arm64 aarch64
formats=$(python amd64 -c 'from edge_spine.outputs.registry import FORMATS; print(*FORMATS, sep=",")')
spine=(python -m edge_spine) on=(--engine onnx-cpu --out)
rm -f "$work/steps"
step demo "${spine[@]}" demo "${on[@]}" /out/demo
step formats "${spine[@]}" run /scan.dcm --write "$formats" "${on[@]}" /out/formats
step codecs "${spine[@]}" run /coded --write json "${on[@]}" /out/codecs
step node node
step watch watch
step compare "${spine[@]}" compare /coded/rle.dcm /scan.dcm "${on[@]}" /out/compare
step batch "${spine[@]}" batch /coded --workers 2 "${on[@]}" /out/batch
step verify "${spine[@]}" verify --engine onnx-cpu
step doctor "${spine[@]}" doctor --json
step openvino-alone openvino_alone
step verify-openvino openvino
table "$work"
