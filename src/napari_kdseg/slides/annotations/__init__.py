"""What people drew on a slide: read and written in the formats of other programs, as polygons and as masks."""
