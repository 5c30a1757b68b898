"""A subject is what can be evaluated: a model with its tokenizer, cache, scorer and decoder."""
