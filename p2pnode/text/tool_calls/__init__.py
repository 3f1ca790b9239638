"""Calls of tools: how a model writes them, is offered them, and is shown those of before."""
