"""A prediction under way: how each network is run is settled, then the loop works through the tiles."""
