"""Triton kernels of the random numbers and of dropout; ``wellposed.random.gpu`` launches them."""
