"""How far masks agree, in figures: counted block by block, so that those of a slide are sums of those of its tiles."""
