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
CORONAL = (SKY, YELLOW, VERMILLION)
POPULATION: Colour = (44, 49, 57)
POPULATION_EDGE: Colour = (96, 104, 116)
BAND: Colour = (92, 88, 32)
BAND_EDGE: Colour = (140, 133, 40)
SAGITTAL = (GREEN, YELLOW, PURPLE)
