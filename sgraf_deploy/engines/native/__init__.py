"""Engine `native`: the scorer in C, compiled when the package is built, and its loader."""
