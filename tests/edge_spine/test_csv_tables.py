"""Tables: no spreadsheet finds a formula in one, text can be read back, and no other module writes any."""

from __future__ import annotations

import ast
import csv
import io
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_spine import csv_tables
from edge_spine.csv_tables import RULE, cell, table

PACKAGE = Path(csv_tables.__file__).parent
FORMULAS = ("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1+1", "\r=1+1", "\n=1+1", "  =1+1", '"=1+1"', "\uff1d1+1")
NUMBERS = ("-1", "+2.5", "-1.5e-07", ".5", "-3.")


def read_back(text: str) -> str:
    """Read a cell back by the expression that the data dictionary gives."""
    expression = RULE.partition("in Python: ")[2]
    return str(eval(expression, {"re": re, "cell": text}))


def is_formula(text: str) -> bool:
    """Return whether a spreadsheet might take a cell for a formula."""
    text = text.strip(' \t\r\n"')
    return text[:1] in tuple("=+-@\uff1d\uff0b\uff0d\uff20") and not re.fullmatch(r"[+-]?[\d.]+(e-?\d+)?", text)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_becomes_text_that_can_be_read_back(text: str) -> None:
    assert is_formula(text) and not is_formula(cell(text))
    assert read_back(cell(text)) == text


@pytest.mark.parametrize("text", [*NUMBERS, "", "a-b", "1-2", "sub-01", "2.25.1", "/data/a b/-c.dcm"])
def test_numbers_and_plain_text_stay_as_they_are(text: str) -> None:
    assert cell(text) == read_back(text) == text


def test_numbers_are_numbers() -> None:
    assert [cell(value) for value in (-1.25, -0.0, 3, None, ["a", "b"])] == ["-1.25", "0.0", "3", "", "a b"]


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_no_separator_of_any_country_uncovers_a_formula(delimiter: str) -> None:
    choose = random.Random(1)
    texts = ["".join(choose.choices("=+-@'\",;|\t\r\n 1aA\uff1d\x00", k=choose.randint(1, 8))) for _ in range(3000)]
    written = table(["x", "text", "y"], [{"x": "a", "text": text, "y": -1.5} for text in texts], delimiter, "n/a")
    rows = list(csv.reader(io.StringIO(written.decode(), newline=""), delimiter=delimiter))
    assert [(row[0], row[2]) for row in rows] == [("x", "y"), *[("a", "-1.5")] * len(texts)]
    expected = [re.sub(r"\s", " ", text) for text in texts] if delimiter == "\t" else texts
    assert [read_back(row[1]) for row in rows[1:]] == expected
    # a quote that another separator opens ends with its line here, for TSV has no line breaks within cells
    parts = written.decode().split("\n") if delimiter == "\t" else [written.decode()]
    for other in ",;\t|":
        found = (row for part in parts for row in csv.reader(io.StringIO(part, newline=""), delimiter=other))
        assert [text for row in found for text in row if is_formula(text)] == []


@pytest.mark.slow
def test_libreoffice_finds_no_formula(tmp_path: Path) -> None:
    """Open a table as a spreadsheet that splits at commas, semicolons and tabs and evaluates formulas."""
    if (office := shutil.which("soffice")) is None:
        pytest.skip("Debian's package libreoffice-calc-nogui is not installed")
    texts = [*FORMULAS, "a;=1+1", 'a;"=1+1"', "a\t=1+1", *NUMBERS]
    (tmp_path / "safe.csv").write_bytes(table(["x", "text"], [{"x": "a", "text": text} for text in texts]))
    with (tmp_path / "raw.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(["a", text] for text in texts)
    # separators, quote, UTF-8, from line 1; formulas are evaluated
    read_as = "--infilter=Text - txt - csv (StarCalc):44/59/9,34,76,1,,0,false,true,false,false,false,-1,true"
    profile = f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}"
    files = [str(tmp_path / name) for name in ("safe.csv", "raw.csv")]
    command = [office, profile, "--headless", "--convert-to", "fods", read_as, "--outdir", str(tmp_path), *files]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    found = {name: (tmp_path / f"{name}.fods").read_text("utf-8").count("table:formula=") for name in ("safe", "raw")}
    assert found["safe"] == 0 < found["raw"], found


def test_the_header_is_text_too() -> None:
    assert table(["=1+1", "a"], [{"=1+1": 1, "a": "b"}]) == b"'=1+1,a\r\n1,b\r\n"


def tables_in(path: Path) -> set[str]:
    """Return which functions that write delimited text, and which files of such text, a module names."""
    functions = {"writer", "DictWriter", "writerow", "writerows", "to_csv", "write_csv", "savetxt"}
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in functions:
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names} & functions
        elif isinstance(node, ast.Constant) and str(node.value).endswith((".csv", ".tsv")):
            found.add(str(node.value))
    return found


def test_nothing_else_in_the_package_writes_a_table(tmp_path: Path) -> None:
    found = {path.stem: named for path in PACKAGE.rglob("*.py") if (named := tables_in(path))}
    assert found == {
        "csv_tables": {"writer", "writerow"},
        # both hand their rows to csv_tables.table
        "tables": {"measurements.csv", "bids/participants.tsv", "participants.tsv"},
        "registry": {"curves.csv"},
    }
    for text in ("import csv\ncsv.writer(f)", "from csv import DictWriter", "open('a.csv', 'w')", "frame.to_csv(f)"):
        (tmp_path / "other.py").write_text(text, encoding="utf-8")
        assert tables_in(tmp_path / "other.py"), text
