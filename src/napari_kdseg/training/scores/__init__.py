"""How good a network is on tiles."""
