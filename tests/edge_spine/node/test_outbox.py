from __future__ import annotations

import json
import time
from pathlib import Path
from unittest.mock import patch

import pytest

from edge_spine.node.outbox import Backoff, Outbox, Parcel

KEY = "a" * 64


def only(outbox: Outbox, in_s: float = 0.0) -> Parcel:
    """Return the one parcel that is due after so many seconds."""
    with patch("edge_spine.node.outbox.time.time", return_value=time.time() + in_s):
        (parcel,) = outbox.due()
    return parcel


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_parcel_until_it_is_delivered(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, Backoff())
    outbox.put(KEY, {"0-sr": b"sr", "1-sc": b"sc"})
    parcel = only(outbox)
    assert [path.read_bytes() for path in parcel.objects()] == [b"sr", b"sc"]
    outbox.delivered(parcel.objects()[0])
    assert [path.name for path in only(outbox).objects()] == ["1-sc.dcm"]
    outbox.close(parcel)
    assert list(outbox.due()) == [] and outbox.counts() == (0, 0)
    assert everything(tmp_path) == set()


def test_a_later_pass_replaces_an_earlier_one(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, Backoff())
    outbox.put(KEY, {"0-sr": b"old", "1-sc": b"old"})
    outbox.put(KEY, {"0-sr": b"new"})
    assert [path.read_bytes() for path in only(outbox).objects()] == [b"new"]


def test_waits_double_up_to_the_cap(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, Backoff(first_s=10, cap_s=60))
    outbox.put(KEY, {"0-sr": b"sr"})
    waits = []
    for _ in range(5):
        parcel = only(outbox, in_s=60)
        assert outbox.postpone(parcel, "unreachable", refused=False)
        waits.append(only(outbox, in_s=60).record.not_before - time.time())
        assert list(outbox.due()) == []
    assert [round(wait, -1) for wait in waits] == [10, 20, 40, 60, 60]


def test_a_clock_that_was_set_back_puts_nothing_off_for_long(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, Backoff(first_s=10, cap_s=60))
    outbox.put(KEY, {"0-sr": b"sr"})
    outbox.postpone(only(outbox), "unreachable", refused=False)
    assert only(outbox, in_s=-86_400).key == KEY


@pytest.mark.hazard("archive-away")
def test_an_old_parcel_becomes_a_dead_letter(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, Backoff(give_up_after_s=0))
    outbox.put(KEY, {"0-sr": b"sr"})
    assert not outbox.postpone(only(outbox), "unreachable", refused=False)
    assert outbox.counts() == (0, 1)
    assert everything(tmp_path) == {f"dead/{KEY}/0-sr.dcm", f"dead/{KEY}/delivery.json"}
    assert json.loads((tmp_path / "dead" / KEY / "delivery.json").read_bytes())["problem"] == "unreachable"


@pytest.mark.hazard("archive-away")
def test_a_clock_that_is_set_right_makes_no_dead_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without a battery for its clock starts in 1970, and learns the time from the network later."""
    outbox = Outbox(tmp_path, Backoff(first_s=10, cap_s=60, give_up_after_s=200))
    monkeypatch.setattr(time, "time", lambda: 100.0)
    outbox.put(KEY, {"0-sr": b"sr"})
    kept = []
    for now in (1.8e9, 1.8e9 + 60, 1.8e9 + 120):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        kept.append(outbox.postpone(only(outbox), "unreachable", refused=False))
    # 120 s, the most that counts, and twice 60
    assert kept == [True, True, False]


@pytest.mark.hazard("archive-away")
def test_a_parcel_that_is_refused_becomes_a_dead_letter(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, Backoff(refusals=2, first_s=0.001))
    outbox.put(KEY, {"0-sr": b"sr"})
    assert outbox.postpone(only(outbox), "status-A900", refused=True)
    time.sleep(0.01)
    assert not outbox.postpone(only(outbox), "status-A900", refused=True)
    assert outbox.counts() == (0, 1)


@pytest.mark.hazard("archive-away")
def test_a_dead_letter_that_is_laid_back_is_sent(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, Backoff(give_up_after_s=0))
    outbox.put(KEY, {"0-sr": b"sr"})
    outbox.postpone(only(outbox), "unreachable", refused=False)
    (tmp_path / "dead" / KEY / "delivery.json").unlink()
    (tmp_path / "dead" / KEY).rename(tmp_path / "outbox" / KEY)
    parcel = only(outbox)
    assert [path.read_bytes() for path in parcel.objects()] == [b"sr"]
    assert time.time() - parcel.record.made < 60


def test_a_damaged_record_loses_nothing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, Backoff())
    outbox.put(KEY, {"0-sr": b"sr"})
    for damage in (b"", b"{", b"[]", b'{"made": 1, "what": 2}', b'{"made": "soon"}'):
        (tmp_path / "outbox" / KEY / "delivery.json").write_bytes(damage)
        assert only(outbox).objects()
        # beside another one, with which it is sorted
        outbox.put("b" * 64, {"0-sr": b"sr"})
        assert len([*outbox.due()]) == 2
        outbox.close(next(parcel for parcel in outbox.due() if parcel.key == "b" * 64))


def test_what_was_not_finished_is_no_parcel(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, Backoff())
    torn = tmp_path / "outbox" / f".{KEY}.0011"
    torn.mkdir()
    (torn / "0-sr.dcm").write_bytes(b"s")
    assert list(outbox.due()) == []
    assert Outbox(tmp_path, Backoff()).counts() == (0, 0)
    assert not torn.exists()


def test_the_longest_waiting_goes_first(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, Backoff())
    for key in ("c", "a", "b"):
        outbox.put(key * 64, {"0-sr": b"sr"})
    assert [parcel.key[0] for parcel in outbox.due()] == ["c", "a", "b"]
