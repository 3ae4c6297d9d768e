"""The fake backend: jobs that are kept in memory, for tests and benchmarks."""
