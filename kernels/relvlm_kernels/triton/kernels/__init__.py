"""The kernels, in Triton's language; the modules above start them."""
