"""Finished tools on top of the library, thin enough to be read as examples of it."""
