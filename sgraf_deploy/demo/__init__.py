"""The embedded demo: small trained checkpoints, and scenes that they were not trained on."""
