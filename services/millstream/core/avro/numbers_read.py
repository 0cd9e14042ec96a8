"""Columns of any type as whole numbers, reals, booleans and texts: exactly, or null where a value is none.

Each cell is judged on its own. No whole number passes through a double: a real is taken for a whole number only where
every whole number of its size has a double of its own, below 2**53.
"""

from __future__ import annotations

from typing import Final

import polars as pl

EXACT: Final = 1 << 53
_FLOAT_MAX: Final = 3.4028234663852886e38
_WHOLE: Final = r"^([+-]?[0-9]+)\.0*$"
_LONG_WHOLE: Final = r"^[+-]?[0-9]{16,}$"
_INFINITE: Final = r"(?i)inf"


def nothing(series: pl.Series, dtype: type[pl.DataType]) -> pl.Series:
    """Return as many nulls."""
    return pl.Series([None] * len(series), dtype=dtype)


def whole_numbers(series: pl.Series) -> pl.Series:
    """Return Int64, null where a cell is no whole number of 64 bits.

    Examples
    --------
    >>> whole_numbers(pl.Series(["7", "7.0", "7.5", "7e2", "9007199254740993", "9007199254740993.0"])).to_list()
    [7, 7, None, None, 9007199254740993, None]
    """
    if series.dtype.is_integer():
        return series.cast(pl.Int64, strict=False)
    if series.dtype.is_float():
        made = series.cast(pl.Int64, strict=False)
        wide = series.cast(pl.Float64)
        return made.set(((made.cast(pl.Float64) == wide) & (wide.abs() < EXACT)).fill_null(False).not_(), None)
    if series.dtype == pl.Decimal:
        return _whole_texts(series).cast(pl.Int64, strict=False)
    if series.dtype == pl.String:
        texts = series.str.strip_chars()
        made = texts.cast(pl.Int64, strict=False)
        if made.null_count() == series.null_count():
            return made
        # A fraction of zeros was written from a double, which is exact below 2**53 only.
        pointed = texts.str.extract(_WHOLE).cast(pl.Int64, strict=False)
        pointed = pointed.set((pointed >= EXACT) | (pointed <= -EXACT), None)
        return made.zip_with(made.is_not_null(), pointed)
    return nothing(series, pl.Int64)


def _whole_texts(decimals: pl.Series) -> pl.Series:
    """Return the digits of decimals without a fraction, whatever their size; null where they have one."""
    texts = decimals.cast(pl.String)
    return texts if decimals.dtype.scale == 0 else texts.str.extract(_WHOLE)  # type: ignore[attr-defined]


def reals(series: pl.Series, *, decimal_comma: bool = False, single: bool = False) -> pl.Series:
    """Return Float64, null where a cell is no number, is a whole number without a double, or does not fit.

    Parameters
    ----------
    decimal_comma : bool
        As in `millstream.core.avro.reading.Reading`.
    single : bool
        The number must fit 32 bits.
    """
    if series.dtype.is_integer():
        made = series.cast(pl.Float64)
        made = made.set((made.cast(series.dtype, strict=False) == series).fill_null(False).not_(), None)
    elif series.dtype.is_float():
        made = series.cast(pl.Float64)
    elif series.dtype in (pl.String, pl.Decimal):
        made = _real_texts(series.cast(pl.String).str.strip_chars(), decimal_comma and series.dtype == pl.String)
    else:
        return nothing(series, pl.Float64)
    if single:
        made = made.set(made.is_finite().fill_null(False) & (made.abs() > _FLOAT_MAX).fill_null(False), None)
    return made


def _real_texts(texts: pl.Series, decimal_comma: bool) -> pl.Series:
    if decimal_comma:
        texts = texts.set(texts.str.contains(".", literal=True), None).str.replace(",", ".", literal=True)
    made = texts.cast(pl.Float64, strict=False)
    overflown = made.is_infinite() & ~texts.str.contains(_INFINITE)
    made = made.set(overflown.fill_null(False), None)
    long = texts.str.contains(_LONG_WHOLE).fill_null(False)
    if long.any():
        inexact = [wide and int(float(text)) != int(text) for wide, text in zip(long, texts, strict=True)]
        made = made.set(pl.Series(inexact, dtype=pl.Boolean), None)
    return made


def booleans(series: pl.Series) -> pl.Series:
    """Return Boolean: true and false in any case, 1 and 0 of any type; null where a cell is none of these.

    Examples
    --------
    >>> booleans(pl.Series(["TRUE", "0", "1.0", "yes", "2"])).to_list()
    [True, False, True, None, None]
    """
    if series.dtype == pl.Boolean:
        return series
    numbers = whole_numbers(series)
    made = (numbers == 1).set(numbers.is_in([0, 1]).fill_null(False).not_(), None)
    if series.dtype == pl.String:
        words = series.str.strip_chars().str.to_lowercase()
        made = made.set((words == "true").fill_null(False), True)
        made = made.set((words == "false").fill_null(False), False)
    return made


def texts(series: pl.Series) -> pl.Series:
    """Return String: texts as they are, whole numbers as their decimal digits; null where a cell is neither."""
    if series.dtype == pl.String or series.dtype.is_integer():
        return series.cast(pl.String)
    if series.dtype == pl.Decimal:
        return _whole_texts(series)
    if series.dtype.is_float():
        return whole_numbers(series).cast(pl.String)
    return nothing(series, pl.String)


def number_texts(tokens: pl.Series) -> pl.Series:
    """Return the decimal digits of numbers as JSON writes them; null where one has a fraction or an exponent."""
    whole = tokens.str.contains(r"^-?[0-9]+$").fill_null(False)
    return tokens.zip_with(whole, whole_numbers(tokens).cast(pl.String)).str.replace(r"^-0$", "0")
