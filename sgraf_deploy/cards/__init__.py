"""Model cards for the Hub: what a bundle is, how it was checked, and how well it ranks."""
