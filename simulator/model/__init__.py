"""What travels with a model to the Hub: its files import only each other, torch, transformers and safetensors."""
