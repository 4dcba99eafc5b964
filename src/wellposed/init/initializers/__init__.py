"""What a weight may start as, by itself."""
