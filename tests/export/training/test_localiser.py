"""The localiser's training samples, and that what is trained is what OpenCV runs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edge_spine.preprocessing.locator import INPUT_SHAPE, STRIDE, read_heat_maps
from export.training.localiser import CELLS, disturb, heat_targets, train, write_onnx


def test_disturbed_landmarks_move_with_the_image() -> None:
    landmarks = np.array([[120.0, 56.0], [90.0, 50.0], [150.0, 60.0]], dtype=np.float32)
    rows, columns = np.mgrid[: INPUT_SHAPE[0], : INPUT_SHAPE[1]]
    spots = [np.exp(-((rows - r) ** 2 + (columns - c) ** 2) / (2 * 2.5**2)) for r, c in landmarks]
    image = np.round(255 * np.max(spots, axis=0)).astype(np.uint8)
    rng = np.random.default_rng(0)
    seen = none = 0
    for _ in range(60):
        shown, points = disturb(rng, image, landmarks)
        assert shown.shape == INPUT_SHAPE and shown.min() >= 0 and shown.max() <= 1
        if points is None:
            none += 1
            continue
        for row, column in points:
            near = shown[int(row) - 2 : int(row) + 4, int(column) - 2 : int(column) + 4]
            seen += near.max() > 0.5
    assert none > 2
    assert seen > 0.9 * 3 * (60 - none)


def test_targets_are_spots_or_even() -> None:
    points = np.array([[100.0, 50.0], [60.5, 40.0], [150.0, 61.0]], dtype=np.float32)
    heat = heat_targets([points, None]).numpy()
    assert heat.shape == (2, 3, *CELLS)
    np.testing.assert_allclose(heat.sum(axis=(2, 3)), 1, rtol=1e-4)
    found, confidence = read_heat_maps(np.log(heat[0] + 1e-12))
    np.testing.assert_allclose(found, points, atol=STRIDE * 0.1)
    assert confidence > 0.85
    assert np.ptp(heat[1]) == 0


@pytest.mark.slow
def test_opencv_runs_the_trained_network_alike(phantom_cache: Path, tmp_path: Path) -> None:
    network = train(phantom_cache, steps=2, batch=2)
    write_onnx(network, tmp_path / "localiser.onnx")
    image = np.random.default_rng(0).random((1, 1, *INPUT_SHAPE), dtype=np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    loaded = cv2.dnn.readNetFromONNX(np.fromfile(tmp_path / "localiser.onnx", dtype=np.uint8))
    loaded.setInput(image)
    np.testing.assert_allclose(np.asarray(loaded.forward()), expected, atol=1e-4)
