"""The version of this tool, part of every engine's key and of every bundle."""

__version__ = "0.1.0"
