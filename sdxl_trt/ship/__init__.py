"""Bundles on their way: to registries, image layouts and archives, and from there to hosts, which fetch what they need.

references   what is written on the command line: oci://host/name:tag, oci-layout:PATH, PATH.tar, s3://…
remote       what every place can do; `open_remote` finds the one that is meant
registry     … over `http`, with `auth`, `credentials` and `retrying`
layout       … as files: in `places`, or in an `archive`
oci          the documents that a bundle is shipped as
packing      a bundle as these documents
push, pull   the two ways; both go on where they were stopped
"""
