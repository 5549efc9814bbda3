"""Base models by size, Hub id or folder, and how a prompt and its target become tokens; hands on loaded models and
tokenised examples."""
