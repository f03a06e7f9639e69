"""Recipes: from YAML files and the command line to one typed value.

`yaml_source` reads, `compose` merges, `schema` says what a recipe is, `typed` types, `written` writes it back.
"""
