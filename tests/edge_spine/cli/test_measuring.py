from __future__ import annotations

from edge_spine.cli.measuring import described, laid_out, machine, peak_memory_mb, quantiles


def test_a_machine_is_described() -> None:
    found = machine("numpy", "no-such-package")
    assert found["cores"] >= 1 and "no-such-package" not in found["versions"]
    text = described(found)
    assert found["versions"]["numpy"] in text and found["date"] in text and text.count("\n") == 1


def test_quantiles() -> None:
    assert quantiles(range(101)) == {"p50": 50.0, "p90": 90.0, "p99": 99.0}


def test_a_table_is_aligned_and_rounds() -> None:
    assert laid_out(("name", "ms"), [("long name", 1.23456), ("b", None), ("c", 12345.6)]) == (
        "name          ms\nlong name   1.23\nb\nc          12346"
    )


def test_peak_memory_is_plausible() -> None:
    peak = peak_memory_mb()
    assert peak is None or 10 < peak < 100_000
