"""Zones in words: ``9:00 UTC+2``, ``5pm Europe/Berlin``, ``noon New York time``; and zones of cities and countries."""

from __future__ import annotations

import functools
import re
from difflib import get_close_matches
from zoneinfo import available_timezones

from ..clock import find_zone
from ..errors import InvalidSchedule

_ALSO = {
    "utc": "UTC", "gmt": "UTC", "zulu": "UTC", "germany": "Europe/Berlin", "france": "Europe/Paris",
    "uk": "Europe/London", "england": "Europe/London", "japan": "Asia/Tokyo", "india": "Asia/Kolkata",
    "delhi": "Asia/Kolkata", "mumbai": "Asia/Kolkata", "bangalore": "Asia/Kolkata", "beijing": "Asia/Shanghai",
    "china": "Asia/Shanghai", "nyc": "America/New_York", "boston": "America/New_York", "washington": "America/New_York",
    "california": "America/Los_Angeles", "san francisco": "America/Los_Angeles", "sf": "America/Los_Angeles",
    "seattle": "America/Los_Angeles", "munich": "Europe/Berlin", "hamburg": "Europe/Berlin", "italy": "Europe/Rome",
    "spain": "Europe/Madrid", "switzerland": "Europe/Zurich", "austria": "Europe/Vienna", "korea": "Asia/Seoul",
}  # fmt: skip
_CONTINENTS = (
    "africa/", "america/", "antarctica/", "asia/", "atlantic/", "australia/", "europe/", "indian/", "pacific/",
)  # fmt: skip


@functools.cache
def _names() -> tuple[dict[str, str], dict[str, str]]:
    """Zones by their whole names and by their cities, in lower case. Reads the zone directory."""
    names = {name.replace("_", " ").lower(): name for name in available_timezones()}
    return names, {
        name.rsplit("/", 1)[-1]: full for name, full in sorted(names.items()) if name.startswith(_CONTINENTS)
    }


def _zone_of(place: str) -> str | None:
    wanted = " ".join(place.strip(" ?.!").lower().replace("_", " ").split())
    names, cities = _names()
    return _ALSO.get(wanted) or names.get(wanted) or cities.get(wanted)


def zone_of_place(place: str) -> str | None:
    """The zone of a city, country or IANA name, or None; forgives typos. Reads files: not for the event loop."""
    if found := _zone_of(place):
        return found
    cities = _names()[1]
    close = get_close_matches(" ".join(place.strip(" ?.!").lower().split()), cities, n=1, cutoff=0.83)
    return cities[close[0]] if close else None


_ONE_MEANING = {
    "utc": "UTC", "gmt": "UTC", "zulu": "UTC", "z": "UTC", "jst": "Asia/Tokyo", "kst": "Asia/Seoul",
    "hkt": "Asia/Hong_Kong", "sgt": "Asia/Singapore",
}  # fmt: skip
_FIXED = {
    330: "Asia/Kolkata", 345: "Asia/Kathmandu", 270: "Asia/Kabul", 210: "Asia/Tehran", 390: "Asia/Yangon",
    570: "Australia/Darwin", 525: "Australia/Eucla", -570: "Pacific/Marquesas",
}  # fmt: skip
"""Zones that are always so many minutes from UTC."""
_NAMED = re.compile(
    r"[\s(]+\(?(?:"
    r"(?:UTC|GMT)\s?(?P<sign>[+\-−])\s?(?P<hours>\d{1,2})(?::?(?P<minutes>\d{2}))?(?![\d:])"
    rf"|(?P<short>{'|'.join(name for name in _ONE_MEANING if name != 'z')}|(?-i:Z))(?![\w/+-])"
    r"|(?P<vague>[ecmp][sd]t|cest?|bst|ist|aes?t|aedt|mesz?|mez|(?-i:[ECMP]T|WES?T|EES?T|MSK|NZ[SD]?T|BRT)"
    r"|(?:eastern|central|mountain|pacific)\s+(?:standard\s+|daylight\s+)?time|(?-i:Eastern|Central|Mountain|Pacific)"
    r"|(?:server|system|machine|kernel|your|their|his|her|standard|summer|winter|daylight)\s+time)\b"
    r"|(?P<name>[a-z]+/[a-z_]+(?:/[a-z_]+)?)\b"
    r"|(?P<own>(?:my|local|our)\s+time)\b"
    r"|(?P<place>[a-z]+(?:[ _][a-z]+){0,2}?)\s+(?:local\s+)?time\b"
    r"|(?:in\s+)?(?P<where>[a-z]+(?:[ _][a-z]+)?)\b"
    r")\)?",
    re.IGNORECASE,
)
_SHIFT = re.compile(r"(?<=\d)(?P<zulu>Z)\b|(?<=\d)\s?(?P<sign>\+)(?P<hours>\d{2})(?::?(?P<minutes>\d{2}))?(?![\d:])")
"""``9:00+02:00``; with a minus it would be a range."""


def zone_at(text: str, position: int) -> tuple[str, int] | None:
    """The zone that ``text`` names at ``position``, behind a time, and where its name ends.

    The zone is ``""`` for the reader's own. Raises InvalidSchedule for one that can be several, or is not known.
    """
    if shift := _SHIFT.match(text, position):
        return "UTC" if shift["zulu"] else _of_offset(shift), shift.end()
    match = _NAMED.match(text, position)
    if match is None:
        return None
    if match["vague"]:
        raise InvalidSchedule(
            f"{match['vague']} can mean several zones; name one like Europe/Berlin, or leave it out for your own."
        )
    if match["sign"]:
        return _of_offset(match), match.end()
    if match["short"]:
        return _ONE_MEANING[match["short"].lower()], match.end()
    if match["own"]:
        return "", match.end()
    return _named(match)


def _named(match: re.Match[str]) -> tuple[str, int] | None:
    """By an IANA name or a place; None where the words name none."""
    if match["name"]:
        found = _zone_of(match["name"])
        if found is None and match["name"].lower().startswith(_CONTINENTS):
            raise InvalidSchedule(f"There is no zone {match['name']}; write it like Europe/Berlin.")
        return (found, match.end()) if found else None
    if match["where"]:
        is_named = match[0].strip(" (").lower().startswith("in ")
        for place in (match["where"], re.split("[ _]", match["where"])[0]):
            # A city without ``in`` is one with a capital: ``9am Berlin``, not the words of a message.
            if (found := _zone_of(place)) and (is_named or (place[0].isupper() and "/" in found)):
                raise InvalidSchedule(
                    f"A time in {place} may be in its zone or in yours; write {found} behind the time, or put the"
                    " time in quotation marks."
                )
        return None
    found = _zone_of(match["place"])
    if found is None and match["place"].istitle():
        raise InvalidSchedule(f"I know no zone of {match['place']}; name one like Europe/Berlin.")
    return (found, match.end()) if found else None


def _of_offset(match: re.Match[str]) -> str:
    minutes = int(match["hours"]) * 60 + int(match["minutes"] or 0)
    minutes = minutes if match["sign"] == "+" else -minutes
    hours, rest = divmod(minutes, 60)
    # The database of zones counts the other way round: Etc/GMT-2 is UTC+2.
    name = _FIXED.get(minutes) if rest else f"Etc/GMT{-hours:+d}" if hours else "UTC"
    if name is None or find_zone(name) is None:
        raise InvalidSchedule(f"There is no zone that is always{match[0].rstrip(')')}; name one like Europe/Berlin.")
    return name


def cut_zone(words: str, zone: str) -> tuple[str, str]:
    """``9:00 UTC tomorrow`` -> ``9:00 tomorrow`` and its zone, else the given one.

    Raises InvalidSchedule, also for two zones.
    """
    found = None
    position = 0
    while position < len(words):
        named = zone_at(words, position)
        if named is None:
            position += 1
            continue
        if found is not None:
            raise InvalidSchedule("A recall has one zone; make two recalls.")
        found = named[0] or zone
        words = f"{words[:position]} {words[named[1] :]}"
        position += 1
    return " ".join(words.split()), found or zone
