"""The process that fastText trains in: ``python -m lola_data.lid.trainer``, its options as JSON on stdin.

In: ``train``, arguments of ``fasttext.train_supervised``; ``quantize``, arguments of ``quantize``, or null; ``output``,
the file to write. Out: that file. What fastText has to say against it goes to stderr, with exit code 3.

A process of its own, for two reasons. With one thread fastText sets only a tenth of its matrix and takes the rest as
the memory comes, so the memory must come zeroed (see :mod:`lola_data.lid.train`). And it does not listen to an
interrupt before it is done, so there must be something to end.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Train as told."""
    import fasttext

    told = json.load(sys.stdin)
    try:
        model = fasttext.train_supervised(**told["train"])
        if told["quantize"] is not None:
            model.quantize(**told["quantize"])
    except (ValueError, RuntimeError, MemoryError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(3)
    model.save_model(told["output"])


if __name__ == "__main__":
    main()
