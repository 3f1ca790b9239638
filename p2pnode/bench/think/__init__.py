"""What one hidden state costs to send and get back: p2pnode, and what one would use instead."""
