#!/usr/bin/env bash
# Build the images of compose.yaml with Podman, run node and archive, and send them the bundled scan with DCMTK.
#
#   edge_spine/node/containers/try.sh WORK           as root on Debian or Ubuntu; WORK keeps the images, 3 GB
#   edge_spine/node/containers/try.sh WORK --pull    with the base image of the registry
#
# Without --pull a root made by debootstrap stands in for the base image, debian:bookworm-slim: the same packages, from
# Debian itself. Prints what each step took. Exit status: 0 all passed; 1 not all; 77 nothing can be built here.
set -euo pipefail
cannot() { echo "containers cannot be tried here: $1" >&2; exit 77; }
[ $# -ge 1 ] && [ "${2:---pull}" = --pull ] || { sed -n '2,8s/^# \?//p' "$0" >&2; exit 2; }
[ "$(id -u)" = 0 ] || cannot "only root can make a base image and a network"
command -v apt-get > /dev/null || cannot "needs Debian or Ubuntu"
here=$(cd "$(dirname "$0")/../../.." && pwd)
mkdir -p "$1"
work=$(cd "$1" && pwd) base=docker.io/library/debian:bookworm-slim
exec 3>&1
started=$SECONDS
ended() { echo "$1: passed, $((SECONDS - started)) s" >&3; started=$SECONDS; }
failed() { echo "$1: FAILED" >&3; exit 1; }
exec >> "$work/log" 2>&1

apt-get -o DPkg::Lock::Timeout=300 update -q
DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -q --no-install-recommends \
    podman podman-compose runc netavark aardvark-dns iptables debootstrap dcmtk || cannot "apt-get cannot install Podman"
# A store of its own; limits that need no right to raise any; crun takes no control groups of version 1.
runtime=crun
[ -e /sys/fs/cgroup/cgroup.controllers ] && command -v crun || runtime=runc
limits='"nofile=4096:4096", "nproc=4096:4096"'
printf '[containers]\ndefault_ulimits = [%s]\n[engine]\nruntime = "%s"\n' "$limits" $runtime > "$work/containers.conf"
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/store"\nrunroot = "%s/run"\n' "$work" "$work" > "$work/storage.conf"
export CONTAINERS_CONF=$work/containers.conf CONTAINERS_STORAGE_CONF=$work/storage.conf
compose() { podman-compose -p edge-spine-try -f "$here/edge_spine/node/containers/compose.yaml" "$@"; }
node=edge-spine-try_node_1 archive=edge-spine-try_archive_1
compose down || true
trap 'compose down' EXIT
podman volume rm -a -f
ended "tools"

if [ "${2:-}" = --pull ]; then
    podman pull $base || cannot "the registry of images cannot be reached"
elif ! podman image exists $base; then
    rm -rf "$work/root"
    debootstrap --variant=minbase bookworm "$work/root"
    rm -rf "$work"/root/var/{cache/apt/archives/*.deb,lib/apt/lists/*}
    # pip trusts what this machine trusts
    cp /etc/ssl/certs/ca-certificates.crt "$work/root/etc/pip.crt"
    printf '[global]\ncert = /etc/pip.crt\n' > "$work/root/etc/pip.conf"
    tar -C "$work/root" -c . | podman import - $base
    rm -r "$work/root"
fi
ended "base image"
compose build
# podman-compose of Debian 12 ends with 0 also where a build fails
image=$(podman images --format '{{.Repository}}' | grep edge-spine-try_node) || failed "build of the node"
podman images --format '{{.Repository}}' | grep edge-spine-try_archive || failed "build of the archive"
ended "build"
podman run --rm --network none --read-only --tmpfs /tmp --cap-drop all "$image" verify --engine onnx-cpu || failed "verify"
ended "verify without a network"

waited() { for _ in {1..300}; do if "$@"; then return; else sleep 1; fi; done; return 1; }
compose up -d || failed "start"
waited podman healthcheck run $node || failed "health of the node"
waited podman healthcheck run $archive || failed "health of the archive"
ended "start, until both are healthy"
for each in $node $archive; do
    podman exec $each bash -c '[ "$(id -u)" -gt 10000 ] && ! touch /x 2> /dev/null && touch /tmp/x &&
        grep -q "^CapBnd:\s*0*$" /proc/1/status && grep -q "^NoNewPrivs:\s*1" /proc/1/status' || failed "rights in $each"
done
ended "users without rights or capabilities, read-only roots"
echoscu -aet STORESCU -aec EDGE_SPINE 127.0.0.1 11112 || failed "C-ECHO"
storescu -aet STORESCU -aec EDGE_SPINE 127.0.0.1 11112 "$here/edge_spine/data/synthetic_whole_body.dcm" || failed "C-STORE"
held() { python3 -c "import json, urllib.request as u; h = json.load(u.urlopen('http://127.0.0.1:8042/instances')); exit(len(h) != 3)"; }
waited held || failed "results in the archive"
ended "C-ECHO, C-STORE, three results in the archive"
podman stop --time 60 $node
[ "$(podman inspect $node --format '{{.State.ExitCode}}')" = 0 ] || failed "SIGTERM"
[ "$(podman exec $archive cat /proc/1/comm)" = Orthanc ] || failed "the archive goes on"
ended "SIGTERM: exit status 0"
