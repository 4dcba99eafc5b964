"""The first weights of a model of any size as files, written and checked piece by piece."""
