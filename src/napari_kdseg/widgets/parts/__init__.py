"""What docks are made of: the frame, rows and notes, the form of a model of settings, boxes that two docks have."""
