"""A model fitted over a range of strengths."""
