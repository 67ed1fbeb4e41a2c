"""The limits of a config's keys."""

from collections import defaultdict

from relvlm.config.keys import all_keys


def limits(*sections: str, without: tuple[str, ...] = ()) -> dict[str, str]:
    """By what a range says: the keys below these sections that have it, in a line."""
    found = defaultdict(list)
    for key in all_keys():
        if key.range and key.path.startswith(sections) and not key.path.startswith(without):
            found[key.range].append(key.path)
    return {text: " ".join(sorted(set(paths))) for text, paths in found.items()}
