"""Bundles on their way: to registries, image layouts and archives, and from there to hosts, which fetch what they need.

references   what is written on the command line: oci://host/name:tag, oci-layout:PATH, PATH.tar, s3://…
remote       what every place can do; `open_remote` finds the one that is meant
registry     … over `http`, with `auth`, `credentials`, `failures` and `retrying`
layout       … as files: in `places`, or in an `archive`
oci          the documents that a bundle is shipped as
packing      a bundle as these documents
push         sends it
offer        bundle.json of what is somewhere: accepted here or not, before anything else is fetched
choosing     the target for a host, and why it
receiving    its files into a folder
pull         all of these; pull and push go on where they were stopped
"""
