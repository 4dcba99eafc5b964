"""What a model is: roles, weights, names, copies, inputs, and what its forward pass does with each weight."""
