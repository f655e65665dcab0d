"""Figures of training runs: the ``metrics.jsonl`` of one or several in, PNG files and one HTML page out.

``read`` takes the records in, ``measures`` computes from them, ``loss``, ``languages`` and ``experts`` draw a figure
each in the manner of ``style``, ``tables`` makes the tables, ``page`` the HTML page, ``cli`` the command.
"""
