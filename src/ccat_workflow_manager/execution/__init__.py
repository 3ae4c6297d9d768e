"""One attempt of a run, as files: where they are, what the software is given, what it made."""
