"""CHAI-like spectral line reduction: calibrate → baseline → grid, and a check against the truth of simulated data."""
