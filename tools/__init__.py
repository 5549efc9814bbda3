"""Scripts that made what the packages carry: the bundled sample and base model. They are not installed."""
