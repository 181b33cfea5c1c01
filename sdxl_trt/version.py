"""The version of this tool, written into every bundle and picture."""

__version__ = "0.1.0"
