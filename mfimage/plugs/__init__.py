"""Optional doors to other libraries and formats; each imports what it needs when it is used."""
