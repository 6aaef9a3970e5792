"""What went wrong in another library, in one line."""


def reason(error: Exception) -> str:
    """The first line of its text; its name where it has none."""
    return (str(error).strip() or repr(error)).splitlines()[0][:300]
