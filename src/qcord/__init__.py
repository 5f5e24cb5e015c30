"""Quantitative spinal cord MRI: from a raw scan to values per tract and level, each with its error."""
