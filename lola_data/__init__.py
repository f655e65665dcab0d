"""What everything stands on: languages, schemas, shards, recipe, manifest, and the pure algorithms on arrays.

Import the module you need; this package imports none of them, so that it costs nothing.
"""

from lola_data.compile_cache import ensure_cache as _ensure_cache

_ensure_cache()
