"""Tiles under prediction: which comes next, which windows a network sees for it, how seams are blended."""
