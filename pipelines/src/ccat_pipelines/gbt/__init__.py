"""Green Bank Telescope: the position-switched observation, reduced as GBTIDL's `getps` does."""
