"""Training in Lightning: one step, validation by decoding, exact resume."""
