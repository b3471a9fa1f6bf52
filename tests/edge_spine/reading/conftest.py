"""A decoder process of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edge_spine.reading.decoder_process import DecoderProcess


@pytest.fixture()
def fresh() -> Iterator[DecoderProcess]:
    process = DecoderProcess()
    yield process
    process.close()
