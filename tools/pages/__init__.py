"""The site: `python -m tools.pages` stages the pages, draws, generates, builds and checks them."""
