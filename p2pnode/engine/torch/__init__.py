"""The engine that computes with PyTorch, through transformers' own modelling classes."""
