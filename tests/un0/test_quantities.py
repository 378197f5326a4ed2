"""Quantities as people write them are read right, or refused with the fix."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.format import duration, joules
from un0.quantities import (
    parse_count,
    parse_deadline,
    parse_duration_s,
    parse_energy_j,
    parse_moment,
    parse_power_w,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1000", 1000), (" 100 ", 100), ("+100", 100), ("-5", -5), ("0", 0), ("010", 10),
        ("1e6", 10**6), ("1E6", 10**6), ("1.5e3", 1500), ("1M", 10**6), ("1.5M", 1_500_000),
        ("10k", 10_000), ("250K", 250_000), ("2G", 2 * 10**9), ("1 million", 10**6),
        ("3 thousand", 3000), ("1_000_000", 10**6), ("1,000,000", 10**6), ("1 000 000", 10**6),
        ("1000.0", 1000), (1000.0, 1000), (1e6, 10**6), (18446744073709551615, 2**64 - 1),
        ("18446744073709551615", 2**64 - 1),
    ],
)  # fmt: skip
def test_counts(text: object, number: int) -> None:
    assert parse_count(text) == number


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("0x10", "decimal"), ("0o10", "decimal"), ("\uff11\uff10", "0 to 9"), ("ten", "1e6, 250k"),
        ("1,5M", "1.5M"), ("1,000,00", "1,000,000"), ("1.000", "write 1 or 1000"),
        ("1.000.000", "1,000,000"), (10.0, "write 10 or 10000"), ("1m", "1M"), ("2g", "2G"),
        ("1.5", "not a whole number"), (1.5, "not a whole number"), ("1.0005k", "not a whole"),
        ("nan", "not a whole number"), (float("inf"), "not a whole number"), ("", "1000"),
        (True, "not a whole number"), (None, "not a whole number"), (2.0**60, "all its digits"),
        ("1e99999", "not a whole number"), ("1 00", "not a whole number"),
    ],
)  # fmt: skip
def test_counts_refused(text: object, fix: str) -> None:
    with pytest.raises(ValueError, match=r".") as refusal:
        parse_count(text)
    assert fix in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90), (90, 90), (0.5, 0.5), ("1e3", 1000), ("90s", 90), ("90 s", 90), ("90sec", 90),
        ("30min", 1800), ("15m", 900), ("1.5h", 5400), (".5h", 1800), ("2h30m", 9000),
        ("2H30M", 9000), ("2h 30m", 9000), ("2 hours", 7200), ("2 hours, 30 minutes", 9000),
        ("1 hr 5 secs", 3605), ("1d12h", 129_600), ("1w", 604_800), ("3 weeks", 1_814_400),
        ("PT2H", 7200), ("pt2h30m", 9000), ("P1DT12H", 129_600), ("P2W", 1_209_600),
        ("PT0.5S", 0.5),
    ],
)  # fmt: skip
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration_s(text) == seconds
    assert parse_deadline(text) == seconds


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("1:30", "write 1h30m or 1m30s"), ("00:30:00", "write 00h30m00s"), ("1h30", "1h30m"),
        ("1,5h", "1.5h"), ("-5m", "more than 0"), ("0", "more than 0"), (0, "more than 0"),
        ("0h", "more than 0"), ("nan", "2h30m"), ("inf", "2h30m"), ("1e999", "finite"),
        (float("nan"), "finite"), ("P1M", "P30D"), ("P1Y", "P30D"), ("P", "2h30m"), ("PT", "2h30m"),
        ("P1DT", "2h30m"), ("\uff15m", "0 to 9"), ("30m2h", "2h30m"), ("2h2h", "2h30m"),
        ("5 parsecs", "2h30m"), ("2h,", "2h30m"), (True, "2h30m"), ([5], "2h30m"), ("", "2h30m"),
    ],
)  # fmt: skip
def test_durations_refused(text: object, fix: str) -> None:
    with pytest.raises(ValueError, match="not a duration") as refusal:
        parse_duration_s(text)
    assert fix in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "energy_j"),
    [
        (500, 500), ("500", 500), ("500 J", 500), ("500J", 500), ("500 joules", 500),
        ("1e3 J", 1000), ("2kJ", 2000), ("2 kj", 2000), ("2 KJ", 2000), ("3 MJ", 3e6),
        ("0.5 MJ", 5e5), ("2 megajoules", 2e6), ("20 Wh", 72_000), ("0.001Wh", 3.6),
        ("1.5 kWh", 5.4e6), (" 2 KWH ", 7.2e6), ("0.1 kWh", 360_000), ("1 MWh", 3.6e9),
        ("1 000 J", 1000), ("1_000 J", 1000), ("2 kilowatt-hours", 7.2e6),
    ],
)  # fmt: skip
def test_energies(text: object, energy_j: float) -> None:
    assert parse_energy_j(text) == energy_j


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("5 mj", "write 5 MJ or 0.005 J"), ("5 mJ", "5 MJ"), ("5 Mj", "5 MJ"), ("5 mWh", "5 MWh"),
        ("5 MWH", "5 MWh"), ("1,5 kWh", "1.5 kWh"), ("1,000 J", "1000 J"), ("100 kcal", "1.5 kWh"),
        ("5 kW", "1.5 kWh"), ("3 horses", "2 kJ"), ("kWh", "2 kJ"), ("0", "more than 0"),
        ("-5 J", "more than 0"), ("nan", "2 kJ"), ("inf J", "2 kJ"), ("1e400 J", "finite"),
        (float("inf"), "finite"), ("0x10 J", "decimal"), ("\uff15 J", "0 to 9"), (False, "2 kJ"),
    ],
)  # fmt: skip
def test_energies_refused(text: object, fix: str) -> None:
    with pytest.raises(ValueError, match="not an energy") as refusal:
        parse_energy_j(text)
    assert fix in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "power_w"),
    [
        ("500", 500), ("500W", 500), ("500 w", 500), ("1.2kW", 1200), ("1.2 KW", 1200),
        (72.5, 72.5), ("2 MW", 2e6), ("3 kilowatts", 3000), ("1e3 watts", 1000),
        ("10 000 W", 10_000),
    ],
)  # fmt: skip
def test_powers(text: object, power_w: float) -> None:
    assert parse_power_w(text) == power_w


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("5 mW", "write 5 MW or 0.005 W"), ("5mw", "5 MW"), ("1,5 kW", "1.5 kW"),
        ("2 kWh", "1.2kW"), ("3 horses", "500W"), ("W", "500W"),
        ("0", "more than 0"), ("-5W", "more than 0"), ("1e400 W", "finite"), (True, "500W"),
    ],
)  # fmt: skip
def test_powers_refused(text: object, fix: str) -> None:
    with pytest.raises(ValueError, match="not a power") as refusal:
        parse_power_w(text)
    assert fix in str(refusal.value)


def test_a_deadline_may_be_a_time_whose_zone_is_given() -> None:
    midnight = datetime(2026, 12, 1, tzinfo=UTC)
    for text in ("2026-12-01T00:00Z", "2026-12-01 00:00:00Z", "2026-12-01T01:00+01:00"):
        assert parse_deadline(text) == midnight
    for text in ("2026-12-01T00:00", "2026-12-01"):
        with pytest.raises(ValueError, match=r"zone is missing; write 2026-12-01T00:00Z for UTC"):
            parse_deadline(text)
    with pytest.raises(ValueError, match="not a time"):
        parse_deadline("2026-13-01T00:00Z")


@given(st.integers(-(10**18), 10**18))
def test_a_count_survives_every_way_to_write_it(number: int) -> None:
    sign = "-" if number < 0 else ""
    groups = (f"{abs(number):,}".replace(",", mark) for mark in ",_ \u202f")
    for text in (str(number), *(sign + group for group in groups)):
        assert parse_count(text) == number


@given(st.integers(1, 10**6), st.sampled_from([("k", 10**3), ("M", 10**6), ("G", 10**9)]))
def test_a_suffix_is_its_factor(thousandths: int, suffix: tuple[str, int]) -> None:
    name, factor = suffix
    text = f"{thousandths // 1000}.{thousandths % 1000:03d}{name}"
    assert parse_count(text) == thousandths * factor // 1000


@given(*[st.integers(0, 10**4)] * 4)
def test_a_duration_is_the_sum_of_its_parts(d: int, h: int, m: int, s: int) -> None:
    seconds = timedelta(days=d, hours=h, minutes=m, seconds=s).total_seconds()
    texts = [f"{d}d{h}h{m}m{s}s", f"{d} days, {h} hours {m} min {s} sec", f"P{d}DT{h}H{m}M{s}S"]
    for text in texts if seconds else ():
        assert parse_duration_s(text) == seconds


@given(st.floats(0.1, 1e8))
def test_what_we_print_of_a_duration_or_an_energy_reads_back(value: float) -> None:
    assert parse_duration_s(duration(value)) == pytest.approx(value, rel=0.06, abs=0.06)
    if value >= 1:
        assert parse_energy_j(joules(value)) == pytest.approx(value, rel=5e-3)


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)),
    st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m))),
)
def test_a_time_reads_back_in_any_zone(moment: datetime, zone: timezone) -> None:
    moment = moment.replace(tzinfo=zone)
    assert parse_moment(moment.isoformat()) == moment
    assert parse_deadline(moment.isoformat(" ")) == moment


ODD = st.text(st.sampled_from("0123456789,._ eE+-kKmMGhHdDsSwWJjPTZ:\uff15 "), max_size=12)


READERS = [parse_count, parse_duration_s, parse_energy_j, parse_power_w, parse_deadline]


@given(ODD, st.sampled_from(READERS))
def test_whatever_is_typed_is_read_or_refused(text: str, parse: Callable[[object], Any]) -> None:
    try:
        found = parse(text)
    except ValueError:
        return
    digits = [c for c in text if c.isdigit()]
    assert digits
    assert all(c.isascii() for c in digits)
    if parse is not parse_count:
        assert isinstance(found, datetime) or 0 < found < float("inf")
    if parse is parse_energy_j:
        assert "," not in text
        assert not {"mj", "Mj", "mJ"} & {text.strip()[-2:]}
