"""Pretraining of `nano` and its sizes: text, tokenizer, optimiser, n-gram baselines and the model's card."""
