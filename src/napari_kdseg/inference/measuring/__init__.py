"""What is measured of a network here, and the card it is kept on: reach, context, fastest tile, cost."""
