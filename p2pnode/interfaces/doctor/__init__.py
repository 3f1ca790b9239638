"""What can be wrong on this machine and in this swarm, found out and said in plain words."""
