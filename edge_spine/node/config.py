"""Read node.toml: the node's AE title and port, the permitted peers and the destination of results."""

from __future__ import annotations

import ipaddress
import math
import ssl
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pydicom.uid

from edge_spine.bundle.load import MODELS
from edge_spine.engines import ENGINES, PRECISIONS
from edge_spine.errors import EdgeSpineError, UsageError
from edge_spine.node.outbox import Backoff
from edge_spine.outputs.registry import DICOM_OBJECTS, FORMATS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Kinds of results and their SOP classes.
RESULTS: dict[str, pydicom.uid.UID] = {
    name: getattr(pydicom.uid, known.storage_class) for name, known in DICOM_OBJECTS.items()
}
PAGE = Path(__file__).with_name("README.md")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Peer:
    """Permitted sender: an AE title and its address or network."""

    ae_title: str
    network: Network


@dataclass(frozen=True)
class Destination:
    """Application entity that receives the results."""

    ae_title: str
    host: str
    port: int
    tls: bool = False


@dataclass(frozen=True)
class Tls:
    """Certificate and key of the node, and the authority of the peers' certificates (PEM files)."""

    certificate: Path
    key: Path
    authority: Path

    def context(self, side: int) -> ssl.SSLContext:
        """Return the settings of one side of a connection: TLS 1.2 or newer, with a certificate of the authority.

        The side is `ssl.PROTOCOL_TLS_SERVER`, or `ssl.PROTOCOL_TLS_CLIENT`, which checks the host name as well.
        Raise EdgeSpineError where a file is missing or no valid PEM file.
        """
        context = ssl.SSLContext(side)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(self.certificate, self.key)
            context.load_verify_locations(self.authority)
        except OSError as error:
            what = error.reason if isinstance(error, ssl.SSLError) else error.strerror
            raise EdgeSpineError(f"the files of [tls] cannot be used ({what}); PEM files are expected") from None
        return context


@dataclass(frozen=True)
class NodeConfig:
    """Content of node.toml, whose keys the page README.md explains; `results` are keys of `RESULTS`."""

    ae_title: str
    host: str
    port: int
    spool: Path
    peers: tuple[Peer, ...]
    destination: Destination
    results: tuple[str, ...] = ("sr", "sc", "stl-dcm")
    tls: Tls | None = None
    health_port: int = 11113
    least_free_mb: int = 2048
    most_object_mb: int = 64
    keep_days: float = 30.0
    backoff: Backoff = field(default_factory=Backoff)
    engine: str = "auto"
    precision: str = "auto"
    model: str | Path | None = None
    threads: int | None = None


def load_config(path: Path) -> NodeConfig:
    """Read node.toml. Relative paths start at its folder.

    Raise UsageError where the file is missing or not TOML, or has an unknown key or an invalid value; the message names
    it.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file; {PAGE} shows one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the file cannot be read ({type(error).__name__})") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path.name}: not a TOML file: {error}") from None
    folder = path.absolute().parent
    top = _Table(path.name, "", content)
    node, destination, delivery = top.table("node"), top.table("destination"), top.table("delivery")
    tls = None
    if "tls" in content:
        table = top.table("tls")
        tls = Tls(*(folder / table.take(key, _text) for key in ("certificate", "key", "authority")))
    model = node.take("model", _text, None)
    config = NodeConfig(
        ae_title=node.take("ae_title", _ae_title),
        host=node.take("host", _text, "127.0.0.1"),
        port=node.take("port", _PORT),
        spool=folder / node.take("spool", _text),
        peers=tuple(
            Peer(peer.take("ae_title", _ae_title), peer.take("address", _network)) for peer in top.tables("peer")
        ),
        destination=Destination(
            ae_title=destination.take("ae_title", _ae_title),
            host=destination.take("host", _text),
            port=destination.take("port", _PORT),
            tls=destination.take("tls", _truth, False),
        ),
        results=node.take("results", _results, NodeConfig.results),
        tls=tls,
        health_port=node.take("health_port", _PORT_OR_0, NodeConfig.health_port),
        least_free_mb=node.take("least_free_mb", _FROM_0, NodeConfig.least_free_mb),
        most_object_mb=node.take("most_object_mb", _FROM_1, NodeConfig.most_object_mb),
        keep_days=node.take("keep_days", _NUMBER, NodeConfig.keep_days),
        backoff=Backoff(
            first_s=delivery.take("first_retry_s", _ABOVE_0, Backoff.first_s),
            cap_s=delivery.take("longest_retry_s", _ABOVE_0, Backoff.cap_s),
            give_up_after_s=delivery.take("give_up_after_h", _NUMBER, Backoff.give_up_after_s / 3600) * 3600,
            refusals=delivery.take("refusals", _FROM_1, Backoff.refusals),
        ),
        engine=node.take("engine", _one_of(ENGINES), "auto"),
        precision=node.take("precision", _one_of(PRECISIONS), "auto"),
        model=model if model is None or model in MODELS else folder / model,
        threads=node.take("threads", _FROM_1, None),
    )
    top.finish()
    for name in config.results:
        needs = FORMATS[name].needs
        if needs is not None and find_spec(needs[0]) is None:
            raise UsageError(f"{path.name}: the result {name} needs {needs[0]}: pip install '.[{needs[1]}]'")
    if config.destination.tls and config.tls is None:
        raise UsageError(f"{path.name}: destination.tls needs the table [tls]")
    return config


_MISSING: Any = object()


class _Table:
    """Table of the file; `finish` raises on keys that were not taken."""

    def __init__(self, file: str, name: str, values: Any) -> None:
        self._file, self._name = file, name
        if not isinstance(values, Mapping):
            raise UsageError(f"{file}: {name} must be a table")
        self.values = dict(values)
        self._children: list[_Table] = []

    def take(self, key: str, parse: Callable[[Any], Any], default: Any = _MISSING) -> Any:
        where = f"{self._file}: {self._name}.{key}"
        if key not in self.values:
            if default is _MISSING:
                raise UsageError(f"{where} is missing{self._meant(key)}")
            return default
        value = self.values.pop(key)
        try:
            return parse(value)
        except ValueError as error:
            raise UsageError(f"{where} = {value!r}: {error} expected") from None

    def table(self, name: str) -> _Table:
        if name in ("node", "destination") and name not in self.values:
            raise UsageError(f"{self._file}: the table [{name}] is missing{self._meant(name)}")
        child = _Table(self._file, name, self.values.pop(name, {}))
        self._children.append(child)
        return child

    def tables(self, name: str) -> list[_Table]:
        found = self.values.pop(name, [])
        if not isinstance(found, list) or not found:
            raise UsageError(f"{self._file}: at least one [[{name}]] is needed{self._meant(name)}")
        children = [_Table(self._file, name, values) for values in found]
        self._children += children
        return children

    def _meant(self, key: str) -> str:
        """Return the end of a message that names a key in the file which resembles one that is missing."""
        return "".join(f" (is {near!r} meant for it?)" for near in get_close_matches(key, self.values, 1))

    def finish(self) -> None:
        for key in self.values:
            raise UsageError(f"{self._file}: {f'{self._name}.' if self._name else ''}{key} is not a known key")
        for child in self._children:
            child.finish()


def _ae_title(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value.strip()) <= 16 or not value.isascii():
        raise ValueError("an AE title of 1 to 16 characters")
    if not value.isprintable() or "\\" in value:
        raise ValueError("an AE title without control characters and backslashes")
    return value.strip()


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("text")
    return value


def _network(value: Any) -> Network:
    try:
        return ipaddress.ip_network(_text(value))
    except ValueError:
        raise ValueError("an address such as 192.168.1.20, or a network such as 192.168.1.0/24,") from None


def _number(kind: type[float], words: str, least: float, most: float) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, kind)) or not least <= value <= most:
            raise ValueError(words)
        return kind(value)

    return parse


_FROM_0 = _number(int, "a whole number from 0", 0, math.inf)
_FROM_1 = _number(int, "a whole number from 1", 1, math.inf)
_PORT = _number(int, "a port from 1 to 65535", 1, 65_535)
_PORT_OR_0 = _number(int, "a port from 1 to 65535, or 0", 0, 65_535)
_NUMBER = _number(float, "a number from 0", 0, 1e9)
_ABOVE_0 = _number(float, "a number above 0", math.ulp(0.0), 1e9)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _one_of(known: tuple[str, ...]) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in known:
            raise ValueError(f"one of {', '.join(known)}")
        return str(value)

    return parse


def _results(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(item in [*RESULTS] for item in value):
        raise ValueError(f"a list of {', '.join(RESULTS)}")
    return tuple(item for item in RESULTS if item in value)
