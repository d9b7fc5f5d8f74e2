"""Engine `fused`: scorers as Triton kernels, whose (pairs, words, embed) values stay on chip."""
