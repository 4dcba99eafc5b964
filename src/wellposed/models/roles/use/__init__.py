"""What a parameter is for by how it enters a forward pass."""
