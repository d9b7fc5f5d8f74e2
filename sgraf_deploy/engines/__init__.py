"""What runs graphs: one interface, the registry, and an engine a module or package."""
