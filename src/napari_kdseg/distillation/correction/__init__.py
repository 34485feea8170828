"""PLC-KD's parts: images of false pixels, the boundary transform, the similarity correction, and the team of them."""
