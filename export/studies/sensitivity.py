"""Measure the error of each layer in TensorRT's INT8 form: `python -m export.studies.sensitivity [--model BUNDLE]`.

Keeps one reader of a quantised activation (a convolution, a pooling, the shortcut of a residual sum) at a time in
higher precision, and prints the difference to PyTorch float32 on the bundle's references. `python -m export` keeps
readers in higher precision in the printed order if the form misses its tolerance.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edge_spine.bundle import load_bundle
from edge_spine.engines.forms import INT8, INT8_TENSORRT, form_graph
from edge_spine.engines.tensorrt.symmetric import symmetric_graph
from edge_spine.engines.verification import Verification, compare, read_references
from export.forms import Outputs, answers, sensitivity, summary
from export.options import report_file


def main(argv: list[str] | None = None) -> int:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(prog="python -m export.studies.sensitivity", description=__doc__)
    parser.add_argument("--model", type=Path, metavar="BUNDLE", help="default: the packaged model")
    parser.add_argument("--count", type=int, help="references to measure on (default: all)")
    parser.add_argument("--json", type=report_file, metavar="FILE", help="write the figures here too")
    options = parser.parse_args(argv)
    bundle = load_bundle(options.model)
    crops, expected = (part[: options.count] for part in read_references(bundle))

    def judge(found: Outputs) -> Verification:
        pixel = bundle.nominal_model_pixel_mm
        return compare(found, expected, engine="onnx graph", precision=INT8_TENSORRT, model_pixel_mm=pixel)

    model = form_graph(bundle, INT8)
    whole = judge(answers(symmetric_graph(model), crops))
    shipped = judge(answers(form_graph(bundle, INT8_TENSORRT), crops))
    rows = sensitivity(model, crops, judge, lambda line: print(line, file=sys.stderr))
    print("all quantised")
    print(summary([whole]))
    print(f"as shipped: {', '.join(bundle.exact_readers) or 'nothing'} left in higher precision")
    print(summary([shipped]))
    width = max(len(name) for name, _ in rows)
    print(f"\n{'left in higher precision':{width}}{'mean mm':>9}{'p99 mm':>9}{'Cobb deg':>10}")
    for name, found in rows:
        cobb = f"{found.shape.cobb_deg:10.4f}" if found.shape else ""
        print(f"{name:{width}}{found.deviations[-1].mean_mm:9.4f}{found.deviations[-1].p99_mm:9.4f}{cobb}")
    if options.json:
        table = {name: found.to_dict() for name, found in rows}
        report = {"all quantised": whole.to_dict(), "as shipped": shipped.to_dict(), "without": table}
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
