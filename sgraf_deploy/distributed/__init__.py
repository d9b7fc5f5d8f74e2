"""The same bundle, gallery and request code on a cluster of Ray: offline jobs, and the service."""
