"""A map as a small PNG, for people who look before they download."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ccat_pipelines.arrays import Floats

# Ten steps of matplotlib's viridis, which also reads well in grey and for the color-blind
VIRIDIS = np.array(
    [
        (68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142),
        (31, 158, 137), (53, 183, 121), (109, 205, 89), (180, 222, 44), (253, 231, 37),
    ]
)  # fmt: skip
BLANK = (255, 255, 255)
SIDE, MARGIN, LINE = 488, 12, 16


def write_preview(path: Path, data: Floats, *, title: str, legend: str) -> None:
    """Draw a map (row, column), north up, between its least and its greatest value."""
    low, high = np.nanmin(data), np.nanmax(data)
    relative = (data[::-1] - low) / (high - low or 1)
    picture = Image.new("RGB", (SIDE + 2 * MARGIN, SIDE + 3 * MARGIN + 4 * LINE), BLANK)
    pen = ImageDraw.Draw(picture)
    pen.text((MARGIN, MARGIN), title, fill="black")
    sky = Image.fromarray(colors(relative))
    picture.paste(sky.resize((SIDE, SIDE), Image.Resampling.NEAREST), (MARGIN, MARGIN + LINE))
    bar = Image.fromarray(np.broadcast_to(colors(np.linspace(0, 1, SIDE)), (LINE, SIDE, 3)).copy())
    picture.paste(bar, (MARGIN, SIDE + 2 * MARGIN + LINE))
    pen.text((MARGIN, SIDE + 2 * MARGIN + 2 * LINE + 2), f"{low:.4g} … {high:.4g} {legend}", fill="black")
    picture.save(path, optimize=False)


def colors(values: Floats) -> np.ndarray:
    """Return RGB bytes for values from 0 to 1; NaN is blank."""
    steps = np.linspace(0, 1, len(VIRIDIS))
    rgb = np.stack([np.interp(values, steps, channel) for channel in VIRIDIS.T], axis=-1)
    return np.where(np.isnan(values)[..., None], BLANK, np.rint(np.nan_to_num(rgb))).astype(np.uint8)
