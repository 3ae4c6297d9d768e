"""The embedded stack: PostgreSQL, Redis and our own processes under one data directory, watched by one supervisor."""
