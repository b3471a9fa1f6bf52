"""Import inference runtimes with telemetry disabled.

ONNX Runtime 1.32 creates a database of events when it is imported; OpenVINO reports each import to an analytics
service.
"""

from __future__ import annotations

import os
import sys
import threading
from types import ModuleType
from typing import Any

_ERRORS_ONLY = 3
_OPENVINO_REPORTER = "openvino_telemetry"
_hiding = threading.Lock()


def import_onnxruntime() -> Any:
    """Import ONNX Runtime with telemetry disabled; ImportError where it is not installed or does not load."""
    # read while the library loads; a value that the user has set is kept
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    # official Windows builds report usage to the system's event tracing by default
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def import_openvino() -> Any:
    """Import OpenVINO with telemetry disabled; ImportError where it is not installed or does not load."""
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    with _hiding:
        first = "openvino" not in modules and _OPENVINO_REPORTER not in modules
        if first:
            # OpenVINO works without its telemetry package
            modules[_OPENVINO_REPORTER] = None
        try:
            import openvino
        finally:
            if first:
                del modules[_OPENVINO_REPORTER]
    return openvino
