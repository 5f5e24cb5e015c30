"""The parametric template: a cord in closed form."""
