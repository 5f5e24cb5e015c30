"""Healthy values: norms by age, sex, size, site and scanner, and where a person stands among them."""
