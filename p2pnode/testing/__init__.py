"""The virtual network and the vocabulary that tests and simulations share."""
