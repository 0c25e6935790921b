"""Text to tokens and back, exactly: one file per kind of tokenizer."""
