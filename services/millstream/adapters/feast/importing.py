"""Feast, imported in a third of the time: its type checks are compiled for the functions that are called.

Feast decorates its classes with typeguard's ``@typechecked``, which compiles a function again with the checks in it,
and for that parses the whole module once per function: 6 of the 8 s of CPU that ``import feast`` takes, in every
process. A process calls a few of these 240 functions. Here each is compiled at its first call, so that every call is
checked as before.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_Function = Callable[..., Any]


def import_feast() -> None:
    """Import Feast unless it was imported; its own warnings filters are put in front."""
    if "feast" not in sys.modules:
        with _checked_on_first_call():
            importlib.import_module("feast")


@contextmanager
def _checked_on_first_call() -> Iterator[None]:
    import typeguard

    at_once = typeguard.typechecked

    def typechecked(target: Any = None, **options: Any) -> Any:
        if not inspect.isclass(target):
            return at_once(target, **options) if target is not None else at_once(**options)
        for name, attribute in list(vars(target).items()):
            replaced = _replaced(attribute, target, at_once)
            if replaced is not attribute:
                setattr(target, name, replaced)
        return target

    typeguard.typechecked = typechecked
    try:
        yield
    finally:
        typeguard.typechecked = at_once


def _replaced(attribute: Any, owner: type, check: _Function) -> Any:
    """Return the attribute of a class with its functions checked from their first call on."""
    if isinstance(attribute, classmethod | staticmethod):
        function = _replaced(attribute.__func__, owner, check)
        return attribute if function is attribute.__func__ else type(attribute)(function)
    if isinstance(attribute, property):
        get, put, delete = (_replaced(each, owner, check) for each in (attribute.fget, attribute.fset, attribute.fdel))
        return type(attribute)(get, put, delete, attribute.__doc__)
    return _on_first_call(attribute, check) if _is_checkable(attribute, owner) else attribute


def _is_checkable(attribute: Any, owner: type) -> bool:
    """Whether typeguard compiles this attribute: a function written in the body of the class, not decorated."""
    return (
        inspect.isfunction(attribute)
        and attribute.__module__ == owner.__module__
        and attribute.__qualname__.startswith(f"{owner.__qualname__}.")
        and not hasattr(attribute, "__wrapped__")
        and not attribute.__code__.co_filename.startswith("<")
    )


def _on_first_call(function: _Function, check: _Function) -> _Function:
    checked: _Function | None = None

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal checked
        if checked is None:
            with warnings.catch_warnings():
                # What cannot be compiled with checks goes without, silently, as under a decorated class.
                warnings.simplefilter("ignore")
                checked = check(function)
        return checked(*arguments, **named)

    return call
