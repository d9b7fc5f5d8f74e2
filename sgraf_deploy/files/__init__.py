"""The only writer: a file or a folder appears complete or not at all."""
