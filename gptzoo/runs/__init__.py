"""Run directories: what one training leaves on disk, and how it comes back.

Importing this package imports no torch; `gptzoo.runs.checkpoint` does.
"""

from gptzoo.runs.directory import RunDirectory, identity
from gptzoo.runs.records import Records

__all__ = ["Records", "RunDirectory", "identity"]
