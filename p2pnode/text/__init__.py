"""Tokens to text and back, as a model's own file says."""
