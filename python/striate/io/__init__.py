"""Files: weights in, weights out."""
