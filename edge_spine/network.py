"""Names and shapes of the network's input and output, for preprocessing, engines and export."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# rows of the canonical image, from the crown to the toes
CANONICAL_ROWS = 832
CROP_SIZE = 224
ROWS = 209
# crop rows of the curves, top to bottom, 7.5 to 215.5: centred on the crop
CURVE_ROWS: NDArray[np.float64] = 7.5 + np.arange(float(ROWS))
INPUT_NAME = "image"
OUTPUT_NAME = "curves"
INPUT_SHAPE = (1, 3, 224, 224)
OUTPUT_SHAPE = (1, 1254)
