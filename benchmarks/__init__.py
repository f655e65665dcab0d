"""Side-by-side measurements of the corpus stages and of what else does the same work: ``python -m benchmarks``.

Corpus (:mod:`benchmarks.corpus`) -> per stage its contenders (:mod:`benchmarks.stages`), each run in a process of its
own on one core (:mod:`benchmarks.worker`), in turns -> ratios and agreement -> table and ``RESULTS.md``.
"""
