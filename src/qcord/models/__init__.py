"""Forward physics: one contrast a file."""
