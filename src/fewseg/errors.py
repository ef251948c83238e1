"""The error of data that cannot be used; free of torch, so that a command line finds mistakes at once."""


class DataError(ValueError):
    """Data that cannot be used; the message says what was given, what is valid and what to do."""
