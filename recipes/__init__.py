"""Recipes that come with GPTZoo; data, not code."""
