"""The front door: calls of a model that need nothing but the model's name."""
