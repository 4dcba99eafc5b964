"""What happens to each weight's output in a model's forward pass."""
