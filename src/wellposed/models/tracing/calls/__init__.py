"""What a single call in a forward pass does: the function it applies, the terms it sums over, what it writes into."""
