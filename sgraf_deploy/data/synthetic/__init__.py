"""Scenes and captions made by code, for the demo and for tests."""
