"""Where the cord is: masks, centre line, levels, registration, shape."""
