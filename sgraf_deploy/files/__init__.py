"""The one writer: a file or a folder appears whole or not at all."""
