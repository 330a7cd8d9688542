"""Build once, sign it, promote the same digest everywhere."""
