"""Does a reduction keep the contract? It is run as a step would run it, and judged by what it did."""
