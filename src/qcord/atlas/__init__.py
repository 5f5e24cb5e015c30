"""Reading values out per region, level and slice."""
