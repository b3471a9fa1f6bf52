"""Unknown clients, idle connections and damaged messages: known clients are served all the while."""

from __future__ import annotations

import random
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

pytest.importorskip("pynetdicom", reason="pip install '.[node]'")

from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)
from pynetdicom import AE

from tests.edge_spine.node.running import RunningNode, free_port, memory_mb, scan_file, wait_for

MakeDicom = Callable[..., bytes]
HONEST_S = 5.0
IDLE_CONNECTIONS, MUTATED_REQUESTS = 60, 600


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, fake_model: Path) -> Iterator[RunningNode]:
    with RunningNode(tmp_path_factory.mktemp("node"), free_port(), fake_model) as running:
        yield running


def association_request(called: str = "EDGE_SPINE", calling: str = "SCANNER") -> bytes:
    """Return an A-ASSOCIATE-RQ for C-ECHO, byte by byte (PS3.8, 9.3.2)."""

    def item(kind: int, content: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(content)) + content

    context = item(0x20, b"\x01\x00\x00\x00" + item(0x30, b"1.2.840.10008.1.1") + item(0x40, b"1.2.840.10008.1.2"))
    user = item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3.4"))
    titles = called.ljust(16).encode() + calling.ljust(16).encode()
    body = struct.pack(">HH", 1, 0) + titles + bytes(32) + item(0x10, b"1.2.840.10008.3.1.1.1") + context + user
    return struct.pack(">BxI", 1, len(body)) + body


def connected(node: RunningNode) -> socket.socket:
    return socket.create_connection(("127.0.0.1", node.port), timeout=5)


def assert_honest_peer_is_served(node: RunningNode) -> None:
    started = time.monotonic()
    answer = node.echo()
    assert answer.returncode == 0, answer.stderr
    assert time.monotonic() - started < HONEST_S


def threads_of(node: RunningNode) -> int:
    assert node.process is not None
    folder = Path(f"/proc/{node.process.pid}/task")
    return len(list(folder.iterdir())) if folder.exists() else 0


@pytest.mark.slow
def test_the_request_that_is_mutated_below_is_a_good_one(node: RunningNode) -> None:
    with connected(node) as peer:
        peer.sendall(association_request())
        assert peer.recv(1) == b"\x02"


def test_idle_connections_lock_nobody_out(node: RunningNode) -> None:
    with ExitStack() as stack:
        for _ in range(IDLE_CONNECTIONS):
            stack.enter_context(connected(node))
        for _ in range(3):
            assert_honest_peer_is_served(node)


@pytest.mark.slow
def test_idle_associations_lock_nobody_out(node: RunningNode) -> None:
    with ExitStack() as stack:
        for _ in range(IDLE_CONNECTIONS):
            peer = stack.enter_context(connected(node))
            peer.sendall(association_request())
            peer.recv(1)
        for _ in range(3):
            assert_honest_peer_is_served(node)


def test_slow_requests_lock_nobody_out(node: RunningNode) -> None:
    with ExitStack() as stack:
        for _ in range(IDLE_CONNECTIONS):
            stack.enter_context(connected(node)).sendall(association_request()[:40])
        assert_honest_peer_is_served(node)


@pytest.mark.slow
def test_mutated_requests_lock_nobody_out(node: RunningNode) -> None:
    assert node.process is not None
    assert_honest_peer_is_served(node)
    before, good, chance = memory_mb(node.process.pid), association_request(), random.Random(5)
    for number in range(MUTATED_REQUESTS):
        request = bytearray(good)
        for _ in range(chance.randint(1, 8)):
            request[chance.randrange(len(request))] = chance.randrange(256)
        if chance.random() < 0.3:
            request = request[: chance.randrange(1, len(request))]
        with connected(node) as peer:
            peer.sendall(request)
            if chance.random() < 0.5:
                peer.settimeout(0.05)
                with suppress(OSError):
                    peer.recv(64)
        if number % 150 == 149:
            assert_honest_peer_is_served(node)
    assert memory_mb(node.process.pid) - before < 100
    wait_for(lambda: threads_of(node) < 60, "threads that end", 30)


@pytest.mark.slow
def test_an_endless_message_is_cut_off(node: RunningNode) -> None:
    """One PDU that claims 2 GB, and one message of endless PDUs."""
    assert node.process is not None
    before = memory_mb(node.process.pid)
    claim = struct.pack(">BxI", 4, 2**31)
    command = struct.pack(">IBB", 64 * 1024, 1, 0) + bytes(64 * 1024 - 2)
    piece = struct.pack(">BxI", 4, len(command)) + command
    for flood in (claim + bytes(2**20), piece):
        with connected(node) as peer:
            peer.sendall(association_request())
            peer.recv(4096)
            sent = 0
            try:
                while sent < 200 * 2**20:
                    peer.sendall(flood)
                    sent += len(flood)
            except OSError:
                pass
            assert sent < 150 * 2**20, "nobody stopped it"
        assert memory_mb(node.process.pid) - before < 250
    assert_honest_peer_is_served(node)


def test_strangers_are_turned_away(node: RunningNode) -> None:
    for title, called in (("STRANGER", "EDGE_SPINE"), ("SCANNER", "SOMEBODY")):
        assert "Rejected" in str(node.echo(title=title, called=called))
    due = {("STRANGER", "unknown-peer"), ("SCANNER", "wrong-called-title")}
    wait_for(lambda: due <= {(entry.get("sender"), entry.get("reason")) for entry in node.audit()}, "entries")
    assert all(f'turned_away_total{{reason="{reason}"}}' in node.get("/metrics")[1] for _, reason in due)


@pytest.mark.slow
def test_a_title_counts_only_from_its_own_address(tmp_path: Path, fake_model: Path) -> None:
    peers = (
        '[[peer]]\nae_title = "SCANNER"\naddress = "127.0.0.2"\n[[peer]]\nae_title = "OTHER"\naddress = "127.0.0.1"\n'
    )
    with RunningNode(tmp_path, free_port(), fake_model, peers=peers) as node:
        assert node.echo(title="OTHER").returncode == 0
        assert node.echo(title="SCANNER").returncode != 0


@pytest.mark.slow
def test_an_unknown_address_gets_no_word(tmp_path: Path, fake_model: Path) -> None:
    peers = '[[peer]]\nae_title = "SCANNER"\naddress = "127.0.0.2"\n'
    with RunningNode(tmp_path, free_port(), fake_model, peers=peers) as node:
        with connected(node) as peer:
            peer.sendall(association_request())
            try:
                answer = peer.recv(10)
            except ConnectionResetError:
                answer = b""
            assert answer == b""
        assert 'edge_spine_turned_away_total{reason="unknown-address"}' in node.get("/metrics")[1]


def stored(node: RunningNode, content: bytes, *, uid: str, sop_class: str, syntax: str) -> int:
    """Send a data set under a UID that no honest client would send; return the status, or -1 where there is none."""
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_STORE

    entity = AE("SCANNER")
    # A data set that was announced and never comes has no answer.
    entity.dimse_timeout = 10
    entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", node.port, ae_title="EDGE_SPINE")
    if not association.is_established or not association.accepted_contexts:
        return -1
    request = C_STORE()
    request.MessageID, request.Priority, request.AffectedSOPClassUID = 1, 2, sop_class
    request.AffectedSOPInstanceUID = uid
    request.DataSet = BytesIO(content)
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    status = -1 if answer is None else int(answer.Status)
    association.abort()
    return status


def test_a_uid_is_never_a_path(node: RunningNode, tmp_path: Path, make_dicom: MakeDicom) -> None:
    content = scan_file(tmp_path, make_dicom, 9).read_bytes()
    body = content[132:]
    length = 12 + struct.unpack("<I", body[8:12])[0]
    around = set(node.folder.parent.rglob("*PWN*"))
    status = stored(
        node, body[length:], uid="../../PWN", sop_class=ComputedRadiographyImageStorage, syntax=ExplicitVRLittleEndian
    )
    assert set(node.folder.parent.rglob("*PWN*")) == around
    assert all("PWN" not in name and ".." not in name for name in node.files())
    # the data set has a UID of its own, by which its results go on
    assert status == 0x0000
    wait_for(lambda: any(name.endswith("delivery.json") for name in node.files()), "the scan has no results")
    assert_honest_peer_is_served(node)


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, "1.2.3.4.5"])
def test_other_syntaxes_are_not_negotiated(node: RunningNode, syntax: str) -> None:
    entity = AE("SCANNER")
    entity.add_requested_context(ComputedRadiographyImageStorage, syntax)
    association = entity.associate("127.0.0.1", node.port, ae_title="EDGE_SPINE")
    try:
        assert association.accepted_contexts == []
    finally:
        association.abort()


def test_other_classes_are_not_negotiated(node: RunningNode) -> None:
    entity = AE("SCANNER")
    entity.add_requested_context(CTImageStorage, ImplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", node.port, ae_title="EDGE_SPINE")
    try:
        assert association.accepted_contexts == []
    finally:
        association.abort()


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"Modality": "US"}, "not-dxa"),
        ({"ProtocolName": "Left Femur"}, "not-whole-body"),
        ({"Rows": 65535, "Columns": 65535}, "too-large"),
        ({"NumberOfFrames": 2_000_000_000}, "not-dxa"),
        ({"ExposedArea": None}, "no-spacing"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "unsupported-syntax"),
    ],
)
def test_what_can_never_be_processed_is_refused_by_its_code(
    node: RunningNode, tmp_path: Path, make_dicom: MakeDicom, attributes: dict[str, object], code: str
) -> None:
    path = scan_file(tmp_path, make_dicom)
    path.write_bytes(make_dicom(SOPInstanceUID=generate_uid(), **attributes))
    before = node.scans()
    answer = node.store(path)
    assert code in answer.stdout + answer.stderr
    assert node.scans() == before


@pytest.mark.slow
def test_a_hostile_corpus_costs_no_memory_and_no_service(
    node: RunningNode, tmp_path: Path, make_dicom: MakeDicom
) -> None:
    """What passes for a data set and would fill the memory of a reader that trusts it."""
    assert node.process is not None
    plain = make_dicom(SOPInstanceUID=generate_uid())
    body = plain[144 + struct.unpack("<I", plain[140:144])[0] :]
    nested = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    nested += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    corpus = {
        "nested": body[:200] + nested * 5000,
        "claims": body.replace(struct.pack("<HH2sHH", 0x28, 0x10, b"US", 2, 480), b"\x28\0\x10\0US\2\0\xff\xff"),
        "cut short": body[: len(body) // 2],
        "noise": bytes(random.Random(1).randbytes(500_000)),
        "elf": b"\x7fELF" + body,
        "empty": b"",
        "one long value": struct.pack("<HH2sHI", 0x0010, 0x4000, b"UT", 0, 2**24) + bytes(2**24),
    }
    before = memory_mb(node.process.pid)
    for name, content in corpus.items():
        status = stored(
            node, content, uid=generate_uid(), sop_class=ComputedRadiographyImageStorage, syntax=ExplicitVRLittleEndian
        )
        # What is whole up to its pixels may be taken, and is refused once they are read.
        assert status != 0x0000 or name == "cut short", name
        assert_honest_peer_is_served(node)
    wait_for(lambda: node.health()["queue"] == 0, "an empty queue")
    wait_for(lambda: not any(name.startswith("work/") for name in node.files()), "nothing in work")
    assert memory_mb(node.process.pid) - before < 200
    assert node.process.poll() is None


# --- TLS


def certificate(folder: Path, name: str, authority: tuple[Path, Path] | None = None) -> tuple[Path, Path]:
    """Make a key and a certificate with openssl; its own authority where none is given."""
    key, pem = folder / f"{name}.key", folder / f"{name}.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", str(key)]
    request += ["-out", str(pem), "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    if authority:
        request += ["-CA", str(authority[1]), "-CAkey", str(authority[0])]
    try:
        made = subprocess.run(request, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    if made.returncode:
        pytest.skip("this openssl cannot sign certificates in one step")
    return key, pem


def tls_table(key: Path, pem: Path, authority: Path) -> str:
    return f"[tls]\nkey = '{key}'\ncertificate = '{pem}'\nauthority = '{authority}'\n"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("keys")
    authority = certificate(folder, "authority")
    return {
        "authority": authority,
        "node": certificate(folder, "node", authority),
        "scanner": certificate(folder, "scanner", authority),
        "stranger": certificate(folder, "stranger"),
    }


@pytest.fixture(scope="module")
def tls_node(
    tmp_path_factory: pytest.TempPathFactory, fake_model: Path, keys: dict[str, tuple[Path, Path]]
) -> Iterator[RunningNode]:
    table = tls_table(*keys["node"], keys["authority"][1])
    with RunningNode(tmp_path_factory.mktemp("tls"), free_port(), fake_model, tables=table) as running:
        yield running


@pytest.mark.slow
def test_tls_with_both_certificates(tls_node: RunningNode, keys: dict[str, tuple[Path, Path]]) -> None:
    key, pem = keys["scanner"]
    answer = tls_node.echo("+tls", str(key), str(pem), "+cf", str(keys["authority"][1]))
    assert answer.returncode == 0, answer.stderr


@pytest.mark.slow
def test_tls_without_or_with_a_strange_certificate(tls_node: RunningNode, keys: dict[str, tuple[Path, Path]]) -> None:
    key, pem = keys["stranger"]
    assert tls_node.echo("+tls", str(key), str(pem), "+cf", str(keys["authority"][1])).returncode != 0
    assert tls_node.echo("+tla", "+cf", str(keys["authority"][1])).returncode != 0
    assert tls_node.echo().returncode != 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
def test_old_tls_is_refused_and_new_tls_is_not(tls_node: RunningNode, keys: dict[str, tuple[Path, Path]]) -> None:
    def version(most: ssl.TLSVersion) -> str | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, most
        context.load_cert_chain(keys["scanner"][1], keys["scanner"][0])
        context.load_verify_locations(keys["authority"][1])
        with connected(tls_node) as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as safe:
            return safe.version()

    assert version(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert version(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        version(ssl.TLSVersion.TLSv1_1)


@pytest.mark.slow
def test_silent_connections_do_not_hold_up_the_handshakes_of_others(
    tls_node: RunningNode, keys: dict[str, tuple[Path, Path]]
) -> None:
    key, pem = keys["scanner"]
    with ExitStack() as stack:
        for _ in range(IDLE_CONNECTIONS):
            stack.enter_context(connected(tls_node))
        started = time.monotonic()
        assert tls_node.echo("+tls", str(key), str(pem), "+cf", str(keys["authority"][1])).returncode == 0
        assert time.monotonic() - started < HONEST_S


@pytest.mark.slow
def test_files_that_are_no_certificates(tmp_path: Path, fake_model: Path) -> None:
    (tmp_path / "x.pem").write_text("no")
    x = tmp_path / "x.pem"
    node = RunningNode(tmp_path, free_port(), fake_model, tables=tls_table(x, x, x)).start(wait=False)
    assert node.process is not None
    assert node.process.wait(timeout=60) == 1
    log = node.log.read_text()
    assert "[tls]" in log and "Traceback" not in log
