"""The embedding model and the tokenizer: their files, and what they make of texts."""
