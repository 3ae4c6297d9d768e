"""Where jobs run: the contract of every backend, and the backends."""
