"""Stages in order; the only part that writes files."""
