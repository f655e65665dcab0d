"""Datatrove stages and the corpus graph: download, identify, deduplicate, sample, tokenise."""
