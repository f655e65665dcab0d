"""Language identification: fastText models run, judged, trained, and their known failures."""
