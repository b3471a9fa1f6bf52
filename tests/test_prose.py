"""The text of the pages: what a merge repeats or cuts short is found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_pages import FENCE, PAGES, ROOT, name_of, text_of


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_sentence_stands_in_a_page_twice(page: Path) -> None:
    lines = [line for line in FENCE.sub("", text_of(page)).splitlines() if len(line) > 60]
    # not rows and headings of tables
    lines = [line for line in lines if not line.startswith("|") and not line.endswith(":")]
    assert [line for line in set(lines) if lines.count(line) > 1] == []


def test_the_changelog_is_lists_of_whole_sentences() -> None:
    _, *sections = re.split(r"^### .*\n\n", text_of(ROOT / "CHANGELOG.md"), flags=re.MULTILINE)
    assert len(sections) > 3
    for section in sections:
        entries = re.split(r"^## ", section, flags=re.MULTILINE)[0].rstrip().removeprefix("- ").split("\n- ")
        assert [entry for entry in entries if not entry.endswith(".") or re.search(r"\n(?!  \S)", entry)] == []
