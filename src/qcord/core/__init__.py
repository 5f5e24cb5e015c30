"""Image, grid, series, protocol, template, names, units and errors: what all other layers speak in."""
