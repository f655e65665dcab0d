"""Documents to read: random ones of a tree, removed ones beside those kept, and one document's way."""
