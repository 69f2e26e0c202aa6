"""Answers that are asked for again and again, kept for the very objects that they were made from.

Objects of the inventory never change, so an answer about them stays true. But hashing or comparing them walks
through all that they hold, which for a large rack takes longer than most answers. So here they are told apart
by what they are and not by what they hold: an equal object is another one, and its answer is made anew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def remembered(most: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keep the last ``most`` answers of a function of inventory objects, given by position.

    The objects are kept with the answer, so that no later one can be taken for them.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        kept: OrderedDict[tuple[int, ...], tuple[tuple[Any, ...], R]] = OrderedDict()

        @wraps(function)
        def ask(*args: P.args, **kwargs: P.kwargs) -> R:
            if kwargs:
                return function(*args, **kwargs)
            key = tuple(map(id, args))
            if key in kept:
                kept.move_to_end(key)
                return kept[key][1]
            answer = function(*args, **kwargs)
            kept[key] = (args, answer)
            if len(kept) > most:
                kept.popitem(last=False)
            return answer

        return ask

    return decorate
