"""The uses of a model: simulate, jacobian, bound, least squares, error propagation."""
