"""Every engine on this machine with one model: speed, memory and exactness, in turns."""
