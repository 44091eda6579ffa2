"""Pages in which a reader changes one thing and sees what it changes."""

from .arena import arena

__all__ = ["arena"]
