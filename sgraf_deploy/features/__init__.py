"""Photographs to regions: decoding, extractors, and the checks that keep them the same."""
