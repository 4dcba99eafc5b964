"""Where tensors lie in larger ones that several processes hold: told, found, and applied block by block."""
