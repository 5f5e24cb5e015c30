"""Which model for which series, and the closed-form maps."""
