"""Paraphrase of news sentences: synonyms, voice and order keep the meaning; swapped roles or changed facts do not."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tasks.glue.generated.draw import DAYS, DEEDS, PERSONS, Draw, Group, Label, Pair, groups

GOODS = groups(
    "car/automobile, house/home, store/shop, ship/vessel, picture/painting, farm, hotel, factory/plant, newspaper, "
    "bridge"
)
SALE: Group = ("sale",)


@dataclass(frozen=True)
class Event:
    """Who did what to whom, when and where; a sale has goods as well."""

    agent: Group
    deed: Group
    patient: Group
    day: str
    goods: Group


def draw_pair(draw: Draw, label: Label) -> Pair:
    """Draw two sentences on one event (1) or on two events that differ in one respect (0)."""
    agent, patient = draw.several(PERSONS, 2)
    deed = SALE if draw.chance(0.4) else draw.pick(DEEDS)
    event = Event(agent, deed, patient, draw.pick(DAYS), draw.pick(GOODS))
    draw.below(1)  # version 1 draws a price here, which no sentence names
    second = event if label else _changed(draw, event)
    return _describe(draw, event), _describe(draw, second)


def _changed(draw: Draw, event: Event) -> Event:
    what = draw.pick(("roles", "when", "agent", "patient", "matter"))
    if what == "roles":
        return replace(event, agent=event.patient, patient=event.agent)
    if what == "when":
        return replace(event, day=draw.other(DAYS, event.day))
    if what in ("agent", "patient"):
        others = [person for person in PERSONS if person not in (event.agent, event.patient)]
        return replace(event, **{what: draw.pick(others)})
    if event.deed == SALE:
        return replace(event, goods=draw.other(GOODS, event.goods))
    return replace(event, deed=draw.other(DEEDS, event.deed))


def _describe(draw: Draw, event: Event) -> str:
    agent, patient = f"the {draw.pick(event.agent)}", f"the {draw.pick(event.patient)}"
    if event.deed == SALE:
        goods = f"the {draw.pick(event.goods)}"
        core = draw.pick((f"{agent} sold {goods} to {patient}", f"{patient} bought {goods} from {agent}"))
    else:
        deed = draw.pick(event.deed)
        core = draw.pick((f"{agent} {deed} {patient}", f"{patient} was {deed} by {agent}"))
    return draw.pick((f"{core} on {event.day}", f"on {event.day}, {core}"))
