"""What a network is made of: its layers by role, what it costs, and what flows through a layer."""
