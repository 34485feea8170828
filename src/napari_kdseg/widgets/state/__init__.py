"""What the docks of one viewer share: the slide, the networks, the masks, the jobs; it draws nothing."""
