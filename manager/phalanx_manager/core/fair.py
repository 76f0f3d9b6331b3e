"""Who may have more of what all share."""

from __future__ import annotations


def may_have_more(own: int, everybodys: int, most: int) -> bool:
    """Tell whether somebody may take one more of a thing of which there are so many at most.

    Nobody has more than half of what the others leave. So one alone has plenty, and whoever comes
    after ever so many who take all they can still finds some.

    Args:
        own: how many that one has.
        everybodys: how many all have, that one too.
    """
    return own < (most - (everybodys - own)) // 2
