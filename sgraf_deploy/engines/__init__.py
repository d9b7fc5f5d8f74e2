"""What runs graphs: the base classes, the registry and the policy, and the engines."""
