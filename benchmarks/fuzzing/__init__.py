"""Hostile manifests, and what becomes of them.

documents     manifests that are valid, to begin with
mutations     what is done to them; and JSON that never was a manifest
fates         one of them taken through all that reads a manifest: accepted, or refused and why
tally         how often each
"""
