"""The nouns of the OCI image and distribution specifications, and nothing of BuildKit's.

Digest, descriptor, manifest and index (`model`), a layout directory (`layout`), a layout in a
tar file (`archive`) and image references (`reference`). Everything read here is hostile until
it has been checked: sizes and digests are verified on every read, and ambiguity is refused.
"""
