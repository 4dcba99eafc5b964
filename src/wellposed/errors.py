"""The one error type of the package."""


class WellposedError(ValueError):
    """An argument or a model that wellposed refuses.

    The message says what was given, what was expected and how to mend it. Nothing has been changed when it is raised.
    """
