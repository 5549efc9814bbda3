"""Publishing simulators on the Hub: weights, code and card in a model repository, the explorer in a static Space."""
