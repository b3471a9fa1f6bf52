"""The engines that run on the processor, and which of them are installed here."""

from __future__ import annotations

import numpy as np
import pytest

from edge_spine.engines import engine_problems
from edge_spine.engines.onnx import OnnxEngine
from edge_spine.engines.openvino import OpenVinoEngine

IMAGE = np.zeros((1, 3, 224, 224), np.float32)
ENGINE_OF = {"onnx-cpu": OnnxEngine, "openvino": OpenVinoEngine}


def has_openvino() -> bool:
    return engine_problems()["openvino"] is None


needs_openvino = pytest.mark.skipif(not has_openvino(), reason="openvino is not installed here")
