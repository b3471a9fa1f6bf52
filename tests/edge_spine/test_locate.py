from __future__ import annotations

import io
from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_spine import locate
from edge_spine.errors import BundleError, Refusal
from edge_spine.locate import CELLS, CHANNELS, DILATIONS, POINTS, STRIDE, LevelNetwork
from edge_spine.network import CROP_SIZE, CURVE_ROWS, CropPlacement
from edge_spine.vertebrae import CENTRE_PITCH_MM, LEVELS

Array = NDArray[np.float64]
# rows of an average adult's centres, of the top of T1 and the bottom of L5
CENTRES = 12 + np.concatenate([[0.0], np.cumsum(CENTRE_PITCH_MM)]) / 2.2
ROWS = np.concatenate([CENTRES, [CENTRES[0] - 3.2, CENTRES[-1] + 5.3]])


def network(width: int = 8, seed: int = 0) -> LevelNetwork:
    rng = np.random.default_rng(seed)

    def drawn(*shape: int) -> NDArray[np.float32]:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    return LevelNetwork(
        drawn(7 * CHANNELS, width),
        drawn(width),
        drawn(len(DILATIONS), 3 * width, width) / 4,
        drawn(len(DILATIONS), width),
        drawn(width, POINTS),
        drawn(POINTS),
        np.array([0.5, 0.4], np.float32),
    )


def saved(**changes: object) -> bytes:
    given = network()
    arrays = {field.name: getattr(given, field.name) for field in fields(given)} | changes
    stream = io.BytesIO()
    np.savez(stream, **{name: array for name, array in arrays.items() if array is not None})  # type: ignore[arg-type]
    return stream.getvalue()


def peaks(rows: Array, spread_px: float = 2.0) -> Array:
    """FAKE logarithms of probabilities (112, 19): a peak at each of the rows (19,)."""
    cell = np.arange(CELLS)[:, np.newaxis] * STRIDE
    weight = np.exp(-(((cell - rows) / spread_px) ** 2) / 2) + 1e-9
    return np.asarray(np.log(weight / weight.sum(axis=0)))


def test_the_weights_come_back_from_their_file() -> None:
    read = locate.read_level_network(saved())
    for field in fields(read):
        np.testing.assert_array_equal(getattr(read, field.name), getattr(network(), field.name))


@pytest.mark.parametrize(
    "changes",
    [
        {"exit_bias": None},
        {"entry_bias": np.zeros(9, np.float32)},
        {"exit_bias": np.zeros(POINTS)},
        {"middle_weight": np.zeros((8, 24, 8), np.float32)},
        {"error_px": np.array([np.nan, 1], np.float32)},
    ],
)
def test_other_weights_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(BundleError, match="level network"):
        locate.read_level_network(saved(**changes))


def test_rows_are_read_between_the_cells_that_have_a_probability() -> None:
    found = locate.read_places(peaks(ROWS), np.array([0.5, 0.4]))
    np.testing.assert_allclose(found.rows, ROWS, atol=0.3)


def test_a_wide_probability_has_a_large_expected_error() -> None:
    sharp, wide = (locate.read_places(peaks(ROWS, px), np.array([0.5, 0.4])).error_px for px in (1.5, 6.0))
    assert (wide > sharp + 0.5).all() and (sharp > 0.5).all()


def test_a_vertebra_that_is_seen_nowhere_or_twice_is_placed_by_its_neighbours() -> None:
    logarithms = peaks(ROWS)
    logarithms[:, 8] = -np.log(CELLS)
    ghost = np.full((CELLS, 1), ROWS[2])
    logarithms[:, 6] = np.logaddexp(logarithms[:, 6], peaks(np.repeat(ghost[:1, 0], POINTS))[:, 6] + 0.5)
    rows = locate.read_places(logarithms, np.array([0.5, 0.4])).rows
    assert abs(rows[8] - ROWS[8]) < 4 and abs(rows[6] - ROWS[6]) < 1
    assert (np.diff(rows[: len(LEVELS)]) > 0).all()


def test_unusual_proportions_do_not_change_the_count() -> None:
    # a long thoracic and a short lumbar spine: vertebrae are seen, but each is named by the place it has on average
    pitch = CENTRE_PITCH_MM * np.interp(np.arange(16), [0, 11, 12, 15], [1.15, 1.13, 0.86, 0.84])
    true = 12 + np.concatenate([[0.0], np.cumsum(pitch)]) * (CENTRES[-1] - CENTRES[0]) / pitch.sum()
    ends = [true[0] - 3.2, true[-1] + 5.3]
    cell = np.arange(CELLS)[:, np.newaxis] * STRIDE
    bodies = np.exp(-(((cell - true) / 2.0) ** 2) / 2).sum(axis=1, keepdims=True) + 0.02
    weight = np.exp(-(((cell - CENTRES) / 5.0) ** 2) / 2) * bodies + 1e-9
    logarithms = peaks(np.concatenate([true, ends]))
    logarithms[:, : len(LEVELS)] = np.log(weight / weight.sum(axis=0))
    assert np.abs(CENTRES - true).max() > 6
    found = locate.read_places(logarithms, np.array([0.5, 0.4])).rows
    np.testing.assert_allclose(found[: len(LEVELS)], true, atol=1.0)


def test_the_margin_is_small_where_the_next_name_fits_as_well() -> None:
    sure = locate.read_places(peaks(ROWS), np.array([0.5, 0.4]))
    other = np.concatenate([ROWS[1 : len(LEVELS)], [ROWS[16] + 16], ROWS[-2:]])
    either = np.logaddexp(peaks(ROWS), peaks(other)) - np.log(2)
    unsure = locate.read_places(either, np.array([0.5, 0.4]))
    assert sure.margin > 3 > locate.LEAST_MARGIN > unsure.margin
    place = CropPlacement(2.2, (0.0, 0.0), (2.2, 2.2))
    assert not sure.levels(place).uncertain and unsure.levels(place).uncertain


@pytest.mark.parametrize("seed", range(3))
def test_no_other_chain_is_more_probable(seed: int) -> None:
    # by Viterbi's recursion, written out
    logarithms = np.random.default_rng(seed).normal(0, 3, (CELLS, len(LEVELS)))
    best = {cell: (logarithms[cell, 0], [cell]) for cell in range(CELLS)}
    for level in range(1, len(LEVELS)):
        pitch = CENTRE_PITCH_MM[level - 1] / (2.2 * STRIDE)
        onward = {}
        for cell in range(CELLS):
            ways = [
                (best[cell - step][0] - (step / pitch - 1) ** 2 / (2 * 0.10**2), best[cell - step][1])
                for step in range(1, 15)
                if cell - step in best
            ]
            if ways:
                total, chain = max(ways)
                onward[cell] = (total + logarithms[cell, level], [*chain, cell])
        best = onward
    assert locate.best_chain(logarithms) == max(best.values())[1]


@pytest.mark.parametrize("width", [8, 64])
def test_the_network_is_a_stack_of_dilated_convolutions(width: int) -> None:
    given = network(width)
    strip = np.random.default_rng(1).normal(size=(CROP_SIZE, CHANNELS)).astype(np.float32)
    padded = np.pad(strip, ((3, 3), (0, 0)))
    entered = np.stack([padded[STRIDE * cell : STRIDE * cell + 7].ravel() for cell in range(CELLS)])
    hidden = np.maximum(entered @ given.entry_weight + given.entry_bias, 0)
    for dilation, weight, bias in zip(DILATIONS, given.middle_weight, given.middle_bias, strict=True):
        wide = np.pad(hidden, ((dilation, dilation), (0, 0)))
        seen = [wide[cell : cell + 2 * dilation + 1 : dilation].ravel() for cell in range(CELLS)]
        hidden = hidden + np.maximum(np.stack(seen) @ weight + bias, 0)
    logits = hidden @ given.exit_weight + given.exit_bias
    expected = logits - np.log(np.exp(logits - logits.max(axis=0)).sum(axis=0)) - logits.max(axis=0)
    np.testing.assert_allclose(given.log_probabilities(strip), expected, atol=1e-3)


def test_uneven_distances_are_a_sign_of_a_miscount() -> None:
    even = locate.read_places(peaks(ROWS), np.array([0.5, 0.4]))
    # T7 is left out: T6 stands at its place, and so on up to T2, which stands at T3's
    skipped = ROWS.copy()
    skipped[1:6] = ROWS[2:7]
    skipped[6] = (ROWS[6] + ROWS[7]) / 2
    odd = locate.read_places(peaks(skipped), np.array([0.5, 0.4]))
    assert even.irregularity < 0.05 and not even.uncertain
    assert odd.irregularity > locate.MOST_IRREGULAR and odd.uncertain


def test_ends_stay_at_half_a_body_from_their_centres() -> None:
    rows = ROWS.copy()
    # no probability near L5's bottom, and T1's top far above
    rows[-2:] = 0.0, ROWS[16] + 40
    found = locate.read_places(peaks(rows), np.array([0.5, 0.4])).rows
    shares = (found[0] - found[-2]) / (found[1] - found[0]), (found[-1] - found[16]) / (found[16] - found[15])
    assert 0.249 < min(shares) < max(shares) < 0.451


def test_levels_are_heights_of_the_scan() -> None:
    found = locate.read_places(peaks(ROWS), np.array([0.5, 0.4]))
    levels = found.levels(CropPlacement(2.0, (10.0, 0.0), (4.0, 4.0)))
    np.testing.assert_allclose(levels.z, -(40 + found.rows[:17] * 2.0))
    assert levels.z_error is not None
    np.testing.assert_allclose(levels.z_error, found.error_px[:17] * 2.0)
    assert levels.top > levels.z[0] and levels.bottom < levels.z[-1]


def test_vertebrae_that_are_exchanged_are_refused() -> None:
    found = locate.read_places(peaks(ROWS), np.array([0.5, 0.4]))
    rows = found.rows.copy()
    rows[[7, 8]] = rows[[8, 7]]
    with pytest.raises(Refusal) as refusal:
        replace(found, rows=rows).levels(CropPlacement(2.0, (10.0, 0.0), (4.0, 4.0)))
    assert refusal.value.code == "implausible-curves"


def test_the_centreline_is_continued_straight_to_the_edges_of_the_crop() -> None:
    line = locate.continued(100 + 0.2 * CURVE_ROWS)
    np.testing.assert_allclose(line, 100 + 0.2 * np.arange(CROP_SIZE), atol=1e-6)


@pytest.mark.parametrize("slope", [0.0, 0.35])
def test_a_strip_follows_the_normals_of_the_line(slope: float) -> None:
    # bright stripes across a line that leans: in the strip each lies in one row
    row, column = np.mgrid[:CROP_SIZE, :CROP_SIZE].astype(np.float64)
    line = 112 + slope * (np.arange(CROP_SIZE) - 112.0)
    along = ((row - 112) + slope * (column - 112)) / np.hypot(1, slope)
    crop = (0.5 + 0.4 * np.cos(2 * np.pi * along / 18)).astype(np.float32)
    channels = locate.strip(crop, line)
    assert channels.shape == (CROP_SIZE, CHANNELS) and channels.dtype == np.float32
    inner = channels[60:160, :25]
    assert np.abs(inner - inner[:, :1]).max() < 0.15 < inner[:, 0].std()


@pytest.mark.hazard("sides-exchanged")
def test_left_and_right_keep_their_sides() -> None:
    crop = np.zeros((CROP_SIZE, CROP_SIZE), np.float32)
    crop[:, 130:140] = 1
    channels = locate.strip(crop, np.full(CROP_SIZE, 112.0))
    # channels after the first are in pairs, left before right
    pairs = channels[100, 1:-1].reshape(-1, 2)
    assert (pairs[:, 1] >= pairs[:, 0]).all() and (pairs[:, 1] > pairs[:, 0] + 1).any()


def test_an_empty_crop_gives_finite_numbers() -> None:
    channels = locate.strip(np.zeros((CROP_SIZE, CROP_SIZE), np.float32), np.full(CROP_SIZE, 112.0))
    logarithms = network().log_probabilities(channels)
    assert np.isfinite(channels).all() and np.isfinite(logarithms).all()
    np.testing.assert_allclose(np.exp(logarithms).sum(axis=0), 1)
    assert np.isfinite(locate.read_places(logarithms, np.array([0.5, 0.4])).rows).all()
