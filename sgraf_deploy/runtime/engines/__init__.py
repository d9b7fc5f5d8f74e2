"""Engines that need no torch."""
