"""Words that several tasks share, and word lists written as text."""

from __future__ import annotations

Group = tuple[str, ...]


def words(text: str) -> tuple[str, ...]:
    """Return the items of a list: `car, house` is `("car", "house")`."""
    return tuple(text.split(", "))


def groups(text: str) -> tuple[Group, ...]:
    """Return the groups of a list: `car/automobile, house` is `(("car", "automobile"), ("house",))`."""
    return tuple(tuple(group.split("/")) for group in words(text))


# synonyms
PERSONS = groups(
    "doctor/physician, lawyer/attorney, teacher/instructor, writer/author, reporter/journalist, senator/lawmaker, "
    "actor, thief/robber, priest/clergyman, visitor/guest, banker/financier, sailor, judge, mayor, painter, pilot, "
    "butcher, farmer, nurse, chef"
)
# what one person did to another; the past form is also the participle
DEEDS = groups(
    "hired/recruited, fired/dismissed, praised/applauded, helped/assisted, phoned/called, warned/cautioned, "
    "saved/rescued, accused/blamed, welcomed/greeted, tricked/fooled, questioned/interrogated, attacked/assaulted, "
    "paid/compensated, followed/trailed"
)
DAYS = words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
CITIES = words("London, Paris, Boston, Berlin, Chicago, Madrid, Dublin, Sydney, Oslo, Denver")
