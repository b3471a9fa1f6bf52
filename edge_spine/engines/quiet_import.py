"""Import the inference runtimes without what they would tell their makers, or keep in the user's home for that.

ONNX Runtime 1.32 starts a database of events as soon as it is imported; OpenVINO reports each import to an analytics
service. A hospital's workstation does neither by way of edge-spine.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

_ERRORS_ONLY = 3
_OPENVINO_REPORTER = "openvino_telemetry"


def import_onnxruntime() -> Any:
    """Import ONNX Runtime.

    Raises
    ------
    ImportError
        It is not installed, or does not load.
    """
    # read while the library loads; who has set it to something else is left alone
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    # Official Windows builds report usage to the operating system's event tracing unless told not to.
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def import_openvino() -> Any:
    """Import OpenVINO.

    Raises
    ------
    ImportError
        It is not installed, or does not load.
    """
    if "openvino" not in sys.modules and _OPENVINO_REPORTER not in sys.modules:
        # as though its reporter were not installed, which OpenVINO provides for
        modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
        modules[_OPENVINO_REPORTER] = None
        try:
            import openvino
        finally:
            del modules[_OPENVINO_REPORTER]
        return openvino
    import openvino

    return openvino
