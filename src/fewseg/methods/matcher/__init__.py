"""A training-free prototype matcher: the floor that every trained method must beat."""

from fewseg.methods.matcher.model import Matcher, MatcherConfig

__all__ = ["Matcher", "MatcherConfig"]
