# Only what is public.
from typing import SupportsIndex

def set_kept_memory(limit: SupportsIndex) -> None: ...
