"""What a release consists of, and making its files.

Shipped files come from where they are kept: the image from `image`, chart and YAML from
`manifests/`. Nothing is published here.
"""
