"""Cleaning: series in, series out."""
