"""Data to batches: corpora, tokenizers, memory-mapped tokens, synthetic tasks, Grain pipelines with exact resume.

`TextDataConfig(...).prepare()` gives a `Dataset`, whose `batches(batch_size, seed)` iterate over it.
Nothing here imports jax, and grain (which does) is imported where a pipeline is built.
"""
