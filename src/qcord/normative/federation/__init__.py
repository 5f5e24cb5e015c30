"""Pooling between hospitals: sums over groups of people travel, rows of people do not."""
