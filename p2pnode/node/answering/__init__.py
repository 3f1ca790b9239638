"""Text in, text out: what every face asks of a node, and how an answer comes to it."""
