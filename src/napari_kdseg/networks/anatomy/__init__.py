"""What a network is made of: its layers by name, what it costs, and what flows through a layer."""
