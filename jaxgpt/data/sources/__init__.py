"""Kinds of data, one file each: text, and what is made up while it is learned."""
