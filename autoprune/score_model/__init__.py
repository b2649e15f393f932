"""A Gaussian process over widths: what controllers and the choice of the winner believe about scores."""
