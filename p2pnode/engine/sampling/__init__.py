"""From logits to tokens: how to draw, the draw itself, and what it knows of the tokens before."""
