"""The same bundle, gallery and requests on many machines, by Ray."""
