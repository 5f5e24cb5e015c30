"""Readers: NIfTI, BIDS, gradient tables, landmarks, templates."""
