"""Write tables as CSV or TSV in which a spreadsheet finds no formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# A spreadsheet may also split a cell at the separators of other countries, and takes full-width signs for ASCII ones.
_START = r"(?<![^,;|\x00-\x1f])"
_FORMULA = re.compile(_START + r"""(?=['\x00-\x1f]|[\s"]*[=+\-@\uff1d\uff0b\uff0d\uff20])""")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# What data dictionaries say of columns of text.
RULE = (
    "Text that is not a number has an apostrophe before =, +, -, @, an apostrophe or a control character where these "
    "begin the cell or follow a comma, a semicolon, a bar or a control character, also after spaces or quotes, so that "
    f'a spreadsheet finds no formula. To read back, in Python: re.sub(r"{_START}\'", "", cell)'
)


def table(names: Sequence[str], rows: Iterable[Mapping[str, Any]], delimiter: str = ",", missing: str = "") -> bytes:
    """Return a table with a header, in UTF-8: CSV by RFC 4180, or TSV as BIDS wants it, with neither quotes nor tabs.

    `rows` are values by the names of columns, as `cell` takes them, and `missing` stands in empty cells. `delimiter` is
    a comma or a tab.
    """
    tabs = delimiter == "\t"
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n" if tabs else "\r\n")
    for values in [names, *([row.get(name) for name in names] for row in rows)]:
        texts = map(_text, values)
        writer.writerow([cell(re.sub(r"\s", " ", text) if tabs else text) or missing for text in texts])
    return stream.getvalue().encode("utf-8", "backslashreplace")


def cell(value: Any) -> str:
    """Return a cell that is no formula: `RULE` says how text is changed and read back.

    Floats get up to six decimals; texts of a list are joined by spaces; None is empty.
    """
    text = _text(value)
    return text if _NUMBER.fullmatch(text) else _FORMULA.sub("'", text)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return str(round(value, 6) + 0.0)  # -0.0 becomes 0.0
    return "" if value is None else " ".join(value) if isinstance(value, list) else str(value)
