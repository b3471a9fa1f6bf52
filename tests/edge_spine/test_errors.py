from __future__ import annotations

import pickle

import pytest

from edge_spine.errors import Refusal, named_refusals, reason_of


def test_an_unknown_code_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown refusal code"):
        Refusal("no-such-code", "x")


def test_the_name_of_the_file_is_added_once_and_survives_pickling() -> None:
    with pytest.raises(Refusal) as caught, named_refusals("b.zip"), named_refusals("a.dcm"):
        raise Refusal("no-spine", "no spine")
    assert str(caught.value) == caught.value.message == "a.dcm: no spine"
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.code, str(copy), copy.source) == ("no-spine", "a.dcm: no spine", "a.dcm")
    assert str(Refusal("no-spine", "no spine")) == "no spine"


@pytest.mark.parametrize(
    ("error", "words"), [(OSError(2, "no such file"), "no such file"), (PermissionError(), "PermissionError")]
)
def test_an_error_without_words_is_named_by_its_type(error: OSError, words: str) -> None:
    assert reason_of(error) == words
