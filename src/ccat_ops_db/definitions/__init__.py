"""Definitions as code: what people write in YAML, checked piece by piece.

`document` says what a file may hold, `steps` what a step is, `words` what names and values look like; `parsing` makes
one of a file, or says all that is wrong with it.
"""
