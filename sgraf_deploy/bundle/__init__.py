"""The artifact on disk: all that a service needs."""
