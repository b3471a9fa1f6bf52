"""Start servers on this machine, for tests and benchmarks: Ray with two nodes, Dask with several workers."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

HERE = "127.0.0.1"
_OBJECT_STORE = "80000000"
_ATTEMPTS = 3
# These clusters run briefly on loopback and must not read the user's token for real ones.
_RAY_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1", "RAY_AUTH_MODE": "disabled"}


def free_port() -> int:
    """Return a free port on loopback, below the range of ephemeral ports."""
    for port in random.SystemRandom().sample(range(21_000, 30_000), 100):
        with suppress(OSError), socket.socket() as probe:
            probe.bind((HERE, port))
            return port
    raise RuntimeError("no port is free")


@contextmanager
def ray_cluster(folder: Path, cores_a_node: int = 1, gpus_a_node: int = 0) -> Iterator[str]:
    """Start a head and a second node, each with its own raylet; yields the address.

    Parameters
    ----------
    folder : Path
        For Ray's sockets and logs; a short path, since a socket's name has little room.
    cores_a_node : int
        Number of processors that each node reports.
    gpus_a_node : int
        Number of GPUs that each node reports, whether it has them or not.
    """
    for attempt in range(_ATTEMPTS):
        with ExitStack() as stack:
            try:
                address = _start_ray(stack, folder / f"{attempt}", cores_a_node, gpus_a_node)
            except RuntimeError:
                # A port that Ray has chosen may be in use by now.
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            yield address
            return


def _start_ray(stack: ExitStack, folder: Path, cores_a_node: int, gpus_a_node: int) -> str:
    folder.mkdir()
    address = f"{HERE}:{free_port()}"
    os.environ.update(_RAY_SETTINGS)
    common = [f"--num-cpus={cores_a_node}", f"--node-ip-address={HERE}", "--disable-usage-stats", "--block"]
    common += [f"--object-store-memory={_OBJECT_STORE}", f"--num-gpus={gpus_a_node}"]
    head = ["--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false", f"--temp-dir={folder}"]
    for count, node in enumerate((head, [f"--address={address}"]), 1):
        path = folder / f"node{count}.log"
        log = stack.enter_context(path.open("wb"))
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *node, *common]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        stack.callback(end, process)
        if not has_started(process, lambda count=count: _ray_nodes(address) >= count):
            raise RuntimeError(f"Ray does not start:\n{path.read_text(errors='replace')[-2000:]}")
    return address


@contextmanager
def dask_cluster(workers: int = 2) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Start a scheduler and workers without nannies; yields the address and the workers' processes."""
    port = free_port()
    address = f"tcp://{HERE}:{port}"
    dask = [sys.executable, "-m", "dask"]
    common = ["--host", HERE, "--no-dashboard"]
    nothing = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with ExitStack() as stack:
        scheduler = subprocess.Popen([*dask, "scheduler", *common, "--port", str(port)], **nothing)
        stack.callback(end, scheduler)
        if not has_started(scheduler, lambda: answers(port)):
            raise RuntimeError("Dask does not start")
        processes = []
        for _ in range(workers):
            process = subprocess.Popen([*dask, "worker", address, *common, "--nthreads", "1", "--no-nanny"], **nothing)
            stack.callback(end, process)
            processes.append(process)
        import distributed

        with distributed.Client(address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=60)
        yield address, processes


def _ray_nodes(address: str) -> int:
    """Query the cluster from another process, because a process can connect to one cluster only."""
    code = (
        "import ray, sys; ray.init(sys.argv[1], log_to_driver=False, configure_logging=False); "
        "print(sum(node['Alive'] for node in ray.nodes()))"
    )
    if not answers(int(address.rpartition(":")[2])):
        return 0
    try:
        asked = subprocess.run(
            [sys.executable, "-c", code, address], capture_output=True, text=True, timeout=60, check=False
        )
        return int(asked.stdout.split()[-1]) if asked.returncode == 0 else 0
    except subprocess.TimeoutExpired:
        return 0


def answers(port: int) -> bool:
    """Return whether a server listens on a port of loopback."""
    with suppress(OSError), socket.create_connection((HERE, port), 1):
        return True
    return False


def has_started(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> bool:
    """Wait until a process is ready; return False if it exits before, or takes two minutes."""
    deadline = time.monotonic() + 120
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def end(process: subprocess.Popen[bytes]) -> None:
    """Terminate a process, or kill it after 20 s."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
