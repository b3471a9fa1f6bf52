from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from edge_spine.errors import UsageError
from edge_spine.node.config import PAGE, Destination, NodeConfig, Peer, load_config

WHOLE = """
[node]
ae_title = "EDGE_SPINE"
port = 11112
spool = "spool"

[[peer]]
ae_title = "IDXA"
address = "192.168.1.0/24"

[destination]
ae_title = "PACS"
host = "pacs"
port = 104
"""


def loaded(folder: Path, text: str) -> NodeConfig:
    path = folder / "node.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def test_what_must_be_said_is_enough(tmp_path: Path) -> None:
    config = loaded(tmp_path, WHOLE)
    assert config.peers == (Peer("IDXA", ipaddress.ip_network("192.168.1.0/24")),)
    assert config.destination == Destination("PACS", "pacs", 104)
    assert config.spool == tmp_path / "spool"
    assert config.host == "127.0.0.1"
    assert config.results == ("sr", "sc", "stl-dcm")
    assert config.tls is None


def test_everything_else(tmp_path: Path) -> None:
    more = WHOLE.replace(
        'spool = "spool"',
        'spool = "/srv/spool"\nhost = "0.0.0.0"\nresults = ["stl-dcm", "sr"]\nhealth_port = 0\nleast_free_mb = 1\n'
        'most_object_mb = 8\nkeep_days = 0.5\nengine = "onnx-cpu"\nmodel = "bundle"\nthreads = 2',
    )
    more += "tls = true\n[tls]\ncertificate = 'c.pem'\nkey = 'k.pem'\nauthority = '/etc/a.pem'\n"
    more += "[delivery]\nfirst_retry_s = 1\nlongest_retry_s = 2\ngive_up_after_h = 3\nrefusals = 4\n"
    config = loaded(tmp_path, more)
    # an absolute path stands for itself
    assert config.spool == tmp_path / "/srv/spool"
    assert (config.host, config.results, config.health_port) == ("0.0.0.0", ("sr", "stl-dcm"), 0)
    assert (config.least_free_mb, config.most_object_mb, config.keep_days) == (1, 8, 0.5)
    assert (config.engine, config.model, config.threads) == ("onnx-cpu", tmp_path / "bundle", 2)
    assert loaded(tmp_path, more.replace('"bundle"', '"lite"')).model == "lite"
    assert config.destination.tls and config.tls is not None
    assert config.tls.certificate == tmp_path / "c.pem"
    assert (config.backoff.first_s, config.backoff.cap_s) == (1, 2)
    assert (config.backoff.give_up_after_s, config.backoff.refusals) == (3 * 3600, 4)


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        ("port = 11112", "", "node.port is missing"),
        ("port = 11112", "port = 70000", "node.port = 70000"),
        ("port = 11112", "port = '11112'", "node.port"),
        ("port = 11112", "port = true", "node.port"),
        ("port = 11112", "port = 11112\nprot = 1", "node.prot is not a known key"),
        ("[node]", "[nodes]", "the table [node] is missing (is 'nodes' meant"),
        ("[[peer]]", "[[peers]]", "[[peer]] is needed (is 'peers' meant"),
        ("port = 104", "prot = 104", "destination.port is missing (is 'prot' meant"),
        ('"EDGE_SPINE"', '"AN_AE_TITLE_THAT_IS_TOO_LONG"', "node.ae_title"),
        ('"EDGE_SPINE"', '"  "', "node.ae_title"),
        ("[[peer]]", "[peers]", "[[peer]] is needed"),
        ("192.168.1.0/24", "192.168.1.7/24", "peer.address"),
        ("192.168.1.0/24", "anywhere", "peer.address"),
        ('host = "pacs"', 'host = ""', "destination.host"),
        ('host = "pacs"', 'host = "pacs"\ntls = true', "[tls]"),
        ("[destination]", "[tls]\nkey = 'k'\n[destination]", "tls.certificate is missing"),
        ("[destination]", "[delivery]\nfirst_retry_s = 0\n[destination]", "delivery.first_retry_s"),
        ('spool = "spool"', 'spool = "spool"\nresults = ["docx"]', "node.results"),
        ('spool = "spool"', 'spool = "spool"\nresults = []', "node.results"),
        ('spool = "spool"', 'spool = "spool"\nresults = [["sr"]]', "node.results"),
        ('spool = "spool"', 'spool = "spool"\nengine = "abacus"', "node.engine"),
        ('spool = "spool"', 'spool = "spool"\nthreads = 0', "node.threads"),
        ("[node]", "[node", "not a TOML file"),
    ],
)
def test_what_means_nothing_is_named(tmp_path: Path, before: str, after: str, names: str) -> None:
    assert before in WHOLE
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, WHOLE.replace(before, after, 1))
    assert names in str(caught.value)
    assert "node.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file") as caught:
        load_config(tmp_path / "node.toml")
    assert str(PAGE) in str(caught.value) and PAGE.is_file()


def test_a_mark_of_the_byte_order_as_editors_on_windows_write(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(WHOLE, encoding="utf-8-sig")
    assert load_config(tmp_path / "node.toml").ae_title == "EDGE_SPINE"


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(tmp_path / "node.toml")


def test_a_result_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = WHOLE.replace("port = 11112", 'port = 11112\nresults = ["pdf-dcm"]')
    monkeypatch.setattr("edge_spine.node.config.find_spec", lambda _name: object())
    assert loaded(tmp_path, text).results == ("pdf-dcm",)
    monkeypatch.setattr("edge_spine.node.config.find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"\.\[report\]"):
        loaded(tmp_path, text)
