"""Where a mask's stream comes from: a keyed block, or torch's generator."""
