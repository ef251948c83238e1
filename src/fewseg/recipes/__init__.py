"""Recipes: one function per published row, and the real and synthetic small sets."""
