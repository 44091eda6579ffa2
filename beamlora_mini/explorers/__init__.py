"""Pages in which a reader changes one thing and sees what it changes."""

from .arena import arena
from .explore import explore

__all__ = ["arena", "explore"]
