"""The artifact on disk: what a service is given."""
