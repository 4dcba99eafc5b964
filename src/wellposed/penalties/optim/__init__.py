"""A penalty on an optimizer: on which parameters, and how it acts on a step."""
