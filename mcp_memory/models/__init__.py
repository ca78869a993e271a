"""The embedding model and the tokenizer, and fetching their files."""
