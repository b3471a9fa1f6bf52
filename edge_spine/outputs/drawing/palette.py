"""Colours of the drawings."""

from __future__ import annotations

from edge_spine.outputs.drawing.canvas import Colour

BACKGROUND: Colour = (11, 13, 16)
CARD: Colour = (21, 24, 29)
GRID: Colour = (28, 32, 38)
RULE: Colour = (48, 54, 63)
TEXT: Colour = (232, 236, 241)
QUIET: Colour = (150, 159, 171)
BONE: Colour = (226, 217, 201)
BLACK: Colour = (0, 0, 0)
# The palette of Okabe and Ito, which can be told apart with any colour vision.
ORANGE: Colour = (230, 159, 0)
SKY: Colour = (86, 180, 233)
GREEN: Colour = (0, 158, 115)
YELLOW: Colour = (240, 228, 66)
VERMILLION: Colour = (213, 94, 0)
PURPLE: Colour = (204, 121, 167)
POPULATION: Colour = (44, 49, 57)
POPULATION_EDGE: Colour = (96, 104, 116)
BAND: Colour = (92, 88, 32)
BAND_EDGE: Colour = (140, 133, 40)

# The colours above by the names that style sheets use.
PALETTE: dict[str, Colour] = {
    **{name.lower().replace("_", "-"): value for name, value in list(globals().items()) if name.isupper()},
    "ground": BLACK,
}
# Lines of the curves keep their colours on paper: they have a dark outline.
PAPER: dict[str, Colour] = {
    **PALETTE,
    "background": (255, 255, 255),
    "card": (255, 255, 255),
    "ground": (255, 255, 255),
    "grid": (226, 228, 232),
    "rule": (190, 194, 200),
    "text": (20, 22, 26),
    "quiet": (82, 88, 97),
    "bone": (120, 106, 80),
    "orange": (150, 84, 0),
    "green": (0, 122, 89),
    "yellow": (224, 204, 0),
    "population": (232, 234, 238),
    "population-edge": (150, 156, 166),
    "band": (246, 240, 190),
    "band-edge": (140, 133, 40),
}

# Colours of the three curves of a view.
CORONAL = (SKY, YELLOW, VERMILLION)
SAGITTAL = (GREEN, YELLOW, PURPLE)
