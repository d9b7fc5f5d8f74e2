"""R@K, parity with the reference, and the gate on them."""
