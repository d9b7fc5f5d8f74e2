"""The embedded demo: small trained checkpoints, and scenes that they never saw."""
