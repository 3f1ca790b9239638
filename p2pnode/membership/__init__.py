"""SWIM gossip: who is alive; ignorant of models."""
