"""Out into the world: the formats and tools that others use."""
