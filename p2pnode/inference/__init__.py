"""One generation across peers: open, prefill, decode, repair."""
