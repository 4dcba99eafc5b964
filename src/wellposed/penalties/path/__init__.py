"""Regularization paths: a model fitted at one strength of a penalty after another."""
