"""The frames that the network's input and output share: canonical image, crop, rows of the curves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# rows of the canonical image, from the crown to the toes
CANONICAL_ROWS = 832
CROP_SIZE = 224
ROWS = 209
# crop rows of the curves, top to bottom: 7.5 to 215.5, so that their middle is the crop's
CURVE_ROWS: NDArray[np.float64] = 7.5 + np.arange(float(ROWS))
