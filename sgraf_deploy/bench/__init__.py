"""Recall, parity, speed and their reports."""
