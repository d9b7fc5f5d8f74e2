"""Measurements of speed, latency, memory and scaling, with their reports."""
