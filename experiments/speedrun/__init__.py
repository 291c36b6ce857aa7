"""A race to fixed errors on fixed data that anyone can enter, see README.md."""
