"""What other programs need to run a bundle's graphs."""
