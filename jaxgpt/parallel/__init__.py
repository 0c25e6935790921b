"""One program on many devices: which part of what lies where."""
