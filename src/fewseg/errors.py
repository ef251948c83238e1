"""Errors; free of torch, so that a command line finds mistakes at once."""


class DataError(ValueError):
    """Data that cannot be used; the message says what was given, what is valid and what to do."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
