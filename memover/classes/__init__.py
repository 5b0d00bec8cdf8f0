"""Classes and functions as the rest of memover sees them."""
