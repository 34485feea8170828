"""Regions of a slide to look at one by one: a list, a gallery of equal crops, and marks."""
