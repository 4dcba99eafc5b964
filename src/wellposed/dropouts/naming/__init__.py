"""Which RNG stream a mask is drawn from: one of a ``keyed`` block, or of torch's generator."""
