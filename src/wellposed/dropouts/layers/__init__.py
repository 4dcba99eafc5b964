"""The modules that drop."""
