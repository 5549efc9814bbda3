"""The explorer: one page that simulates runs by itself, to ask what other training data would have done."""
