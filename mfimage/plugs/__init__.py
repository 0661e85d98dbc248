"""Doors to other libraries and formats, each in their words; what it needs is imported where it is used."""
