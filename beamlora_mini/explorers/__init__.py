"""Pages in which a reader changes one thing and sees what it changes."""

from .arena import arena
from .explore import explore
from .lab import lab
from .playground import playground

__all__ = ["arena", "explore", "lab", "playground"]
