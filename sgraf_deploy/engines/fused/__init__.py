"""The scorer as Triton kernels: no (pairs, words, embed) value ever reaches global memory."""
