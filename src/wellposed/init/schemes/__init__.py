"""What the weights of a whole model start as together."""
