"""Prime-Cam-like timestreams of kinetic inductance detectors: planet calibration → map → fit → check."""
