"""A small URL shortener, written to be copied from."""
