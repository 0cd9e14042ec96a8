"""What commands print: nothing cut off on a narrow terminal, few lines where nobody watches, a warning before harm."""

from __future__ import annotations

import io

from rich.console import Console

from cards import DAY_MS, START_MS, declaration, view
from millstream.app.publish_warnings import late_warning
from millstream.cli.screen import humane, print_rows, steps
from millstream.settings import load_settings


def screen(width: int, *, terminal: bool = False) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, force_terminal=terminal, color_system=None), out


ROWS = [
    {"id": "transactions-2-1234567", "reason": "range", "field": "", "detail": "amount 1e12 is above 1000000"},
    {"id": "transactions-3-8", "reason": "late", "field": "event_time_ms", "detail": "[too old] by 3 days"},
]


def test_rows_are_a_table_where_it_fits_and_blocks_where_not() -> None:
    console, out = screen(120)
    print_rows(console, ROWS)
    assert "id transactions" not in out.getvalue()
    for width in (80, 40, 10):
        narrow, text = screen(width)
        print_rows(narrow, [*ROWS, {**ROWS[0], "detail": "x" * 60}])
        told = text.getvalue()
        assert all(value in told for row in ROWS for value in row.values())
        assert "field \n" not in told
        assert told.splitlines()[0] == "id transactions-2-1234567"
        assert told.splitlines()[-1].strip().endswith("x" * 60)


def test_times_are_told_as_times_and_durations_as_numbers() -> None:
    for name in ("at_ms", "opened_at_ms", "window_from_ms", "window_to_ms", "until_ms", "event_time_ms"):
        assert humane(name, START_MS) == "2018-08-01 00:00:00.000", name
    assert humane("card__feature_time_us", START_MS * 1000) == "2018-08-01 00:00:00.000"
    for name in ("delay_ms", "gap_ms", "latency_ms", "lateness_ms", "format_ms", "id", "at"):
        assert humane(name, START_MS) == str(START_MS), name
    assert humane("until_ms", 1 << 62) == str(1 << 62)


def test_numbered_steps_are_told_once_where_nobody_watches() -> None:
    console, out = screen(80)
    step = steps(console, lambda _text: None)
    for at in range(1, 47):
        step(f"fetching jars: {at} of 46")
    step("starting on port 9092")
    assert out.getvalue().splitlines() == ["fetching jars: 1 of 46", "starting on port 9092"]


def test_a_file_that_begins_too_early_is_warned_of_with_the_declared_limits() -> None:
    declared, settings = declaration(view("v", "customer", days=(1, 30))), load_settings({})
    newest_ms = START_MS + 10 * DAY_MS
    assert late_warning(settings, "transactions", newest_ms - DAY_MS, newest_ms, declared) is None
    assert late_warning(settings, "labels", START_MS, newest_ms, declared) is None
    said = late_warning(settings, "transactions", START_MS, newest_ms, declared)
    assert said is not None
    for words in (
        "begins at 2018-08-01 00:00",
        "up to 2018-08-11 00:00",
        "than 1 day,",
        "than 31 days,",
        "dead letters",
    ):
        assert words in said
