"""Pictures that show their number and which way up they are."""

from __future__ import annotations

import numpy as np

# A picture is 4 x 3 cells, black or white. The corners are marks: white at the top left, black at the others. The eight
# cells between them are six bits of the number and two bits of a check sum.
COLUMNS, ROWS = 4, 3
MAX_NUMBER = 64
_CORNERS = {(0, 0): 1, (0, COLUMNS - 1): 0, (ROWS - 1, 0): 0, (ROWS - 1, COLUMNS - 1): 0}
_BITS = [(row, column) for row in range(ROWS) for column in range(COLUMNS) if (row, column) not in _CORNERS]

# The eight orientations: quarter turns clockwise after an optional mirroring left to right.
ORIENTATIONS = [(mirrored, turns) for mirrored in (False, True) for turns in range(4)]


def turn(picture: np.ndarray, orientation: int) -> np.ndarray:
    """A picture, [H, W, ...], in one of the eight ``ORIENTATIONS``."""
    mirrored, turns = ORIENTATIONS[orientation]
    return np.rot90(picture[:, ::-1] if mirrored else picture, -turns)


def turn_back(picture: np.ndarray, orientation: int) -> np.ndarray:
    """The inverse of ``turn``."""
    mirrored, turns = ORIENTATIONS[orientation]
    turned = np.rot90(picture, turns)
    return turned[:, ::-1] if mirrored else turned


def draw(number: int, width: int, height: int) -> np.ndarray:
    """The picture of a number below ``MAX_NUMBER``: uint8 [height, width, 3]."""
    code = number | _check(number) << 6
    cells = np.zeros((ROWS, COLUMNS), np.uint8)
    for place, value in _CORNERS.items():
        cells[place] = value
    for bit, place in enumerate(_BITS):
        cells[place] = code >> bit & 1
    rows, columns = np.arange(height) * ROWS // height, np.arange(width) * COLUMNS // width
    return np.repeat(255 * cells[rows][:, columns, None], 3, axis=2)


def read(picture: np.ndarray) -> tuple[int, int] | None:
    """The number in a decoded picture, [H, W, 3], and its orientation; None if it is not one of ours."""
    for orientation in range(len(ORIENTATIONS)):
        upright = turn_back(picture, orientation)
        if upright.shape[0] < upright.shape[1] and (number := number_of(cells_of(upright))) is not None:
            return number, orientation
    return None


def cells_of(picture: np.ndarray) -> np.ndarray:
    """Brightness of the middles of an upright picture's cells, [ROWS, COLUMNS]; the borders of cells are blurred."""
    height, width = picture.shape[:2]
    grey = picture.astype(np.float32).mean(-1)
    cells = np.zeros((ROWS, COLUMNS), np.float32)
    for row in range(ROWS):
        for column in range(COLUMNS):
            top, left = int((row + 0.25) * height / ROWS), int((column + 0.25) * width / COLUMNS)
            bottom, right = int((row + 0.75) * height / ROWS) + 1, int((column + 0.75) * width / COLUMNS) + 1
            cells[row, column] = grey[top:bottom, left:right].mean()
    return cells


def number_of(cells: np.ndarray) -> int | None:
    """The number that the cells of an upright picture show, or None."""
    white = cells > 127
    # A cell between black and white belongs to a mixture of two pictures, or to no picture of ours.
    if (np.abs(cells - 127) < 40).any() or any(white[place] != value for place, value in _CORNERS.items()):
        return None
    code = sum(int(white[place]) << bit for bit, place in enumerate(_BITS))
    number = code & MAX_NUMBER - 1
    return number if code >> 6 == _check(number) else None


def _check(number: int) -> int:
    return (number ^ number >> 2 ^ number >> 4 ^ 1) & 3
