"""Container images: brought here once, by their digest, and kept within bounds."""
