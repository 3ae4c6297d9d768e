"""Reference reductions: each step is one process that knows nothing but the container contract."""
