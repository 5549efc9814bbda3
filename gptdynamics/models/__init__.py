"""Base models by size, Hub id or folder, and the tokenisation of prompts and targets."""
