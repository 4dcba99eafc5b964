"""How penalties are computed on tensors: which operands they take, and kernels that update weights in place."""
