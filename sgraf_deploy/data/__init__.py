"""Captions, tokenizer, vocabulary and region features, read from disk and checked."""
