"""Runs of the corpus graph to which, by seed, all kinds of things happen; each must end with the trees of a calm run.

``source`` makes a corpus so small that a run takes a second; ``starter`` starts runs in milliseconds; ``within`` is
what goes wrong inside a process; ``proxy`` and ``places`` are stores and disks that fail; ``play`` is one seed's run,
judged each time it ends; ``scenes`` has the kinds of faults; ``rows`` counts; ``section`` runs many seeds and tells.
"""
