"""May this be published or used: bounds, stored inputs, values and graphs. Needs no PyTorch."""
