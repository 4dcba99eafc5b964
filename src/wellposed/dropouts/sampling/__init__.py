"""Monte Carlo dropout: predictions of many thinned networks."""
