"""The plain model's variables, out of those of a wrapper around it."""


def unwrapped(variables: dict, *path: str) -> dict:
    """Of every collection what is under `path`, where there is anything."""
    found = {}
    for collection, tree in variables.items():
        for name in path:
            tree = tree.get(name, {})
        if tree:
            found[collection] = tree
    return found
