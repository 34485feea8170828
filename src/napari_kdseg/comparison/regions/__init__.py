"""Where two masks of a slide differ, as connected regions: found in one pass, measured, ranked and kept in a table."""
