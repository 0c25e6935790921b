"""One file per family of checkpoints; `families()` finds them."""
