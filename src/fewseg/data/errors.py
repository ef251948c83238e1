"""The error of data that cannot be used."""


class DataError(ValueError):
    """Data that cannot be used; the message says what came, what is accepted and what to do."""
