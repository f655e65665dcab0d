# The compute functions are generated when pyarrow is imported, so no type checker can see them.
from typing import Any

def __getattr__(name: str) -> Any: ...
