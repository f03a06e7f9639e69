"""Models that others made, read and written: one module per family of architectures, one per kind of file."""
