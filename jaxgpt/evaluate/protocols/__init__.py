"""Evaluation protocols, one file each: fixed target, non-overlapping windows, sliding window, loss by position."""
