"""The three verbs in the libraries that train models: one module for each, imported by who uses it."""
