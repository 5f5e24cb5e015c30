"""Digital subjects with known truth."""
