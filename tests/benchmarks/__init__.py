"""Measurements, to be run by hand: both sides of a comparison in one go, taking turns."""
