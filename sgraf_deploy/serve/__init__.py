"""The reranker as a service: HTTP dialects over one request type, and a batcher."""
