"""Two-way entailment: relative clauses, voice, factive and implicative verbs."""

from __future__ import annotations

from tasks.glue.generated.draw import CITIES, DEEDS, PERSONS, Draw, Label, Pair, groups, words

TASKS = groups(
    "sell/sold/the house, pay/paid/the bill, write/wrote/the letter, lock/locked/the door, win/won/the race, "
    "finish/finished/the report, repair/repaired/the roof, find/found/the key, catch/caught/the train"
)
TIMES = words("on Monday, last week, in May, yesterday, after the storm")
DID = words("managed to, remembered to, was able to, did not forget to, did not fail to, bothered to")
DENIED = words("failed to, forgot to, refused to, did not manage to")
DID_NOT = (*DENIED, "was too tired to", "hoped to", "promised to")
FACT = words("knew that, forgot that, was glad that, noticed that, was sorry that, proved that")
NO_FACT = words("believed that, hoped that, denied that, was not sure that, claimed that, dreamed that")


def draw_pair(draw: Draw, label: Label) -> Pair:
    """Draw a text and a hypothesis that follows from it (0) or does not (1)."""
    form = draw.pick((_relative, _relative, _implied, _implied, _reported))
    return form(draw, label == 0)


def _people(draw: Draw) -> list[str]:
    return [f"the {draw.pick(group)}" for group in draw.several(PERSONS, 3)]


def _relative(draw: Draw, follows: bool) -> tuple[str, str]:
    """A relative clause: who did it, and whom does the main clause speak of?"""
    one, two, _ = _people(draw)
    deed, city = draw.pick(draw.pick(DEEDS)), draw.pick(CITIES)
    subject = draw.chance(0.5)
    clause = f"who {deed} {two}" if subject else f"whom {two} {deed}"
    agent, patient = (one, two) if subject else (two, one)
    text = f"{one} {clause} lives in {city}"
    if draw.chance(0.4):
        return text, f"{one if follows else two} lives in {city}"
    if not follows:
        agent, patient = patient, agent
    return text, draw.pick((f"{agent} {deed} {patient}", f"{patient} was {deed} by {agent}"))


def _implied(draw: Draw, follows: bool) -> tuple[str, str]:
    """`Managed to` implies the act; `failed to` its opposite; `hoped to` and `promised to` neither."""
    person = _people(draw)[0]
    stem, past, thing = draw.pick(TASKS)
    time = draw.pick(TIMES)
    if draw.chance(0.4):
        verb = draw.pick(DENIED if follows else DID)
        return f"{person} {verb} {stem} {thing} {time}", f"{person} did not {stem} {thing}"
    return f"{person} {draw.pick(DID if follows else DID_NOT)} {stem} {thing} {time}", f"{person} {past} {thing}"


def _reported(draw: Draw, follows: bool) -> tuple[str, str]:
    """`Knew that` implies the statement; `claimed that` does not."""
    speaker, one, two = _people(draw)
    deed = draw.pick(draw.pick(DEEDS))
    verb = draw.pick(FACT) if follows or draw.chance(0.3) else draw.pick(NO_FACT)
    text = f"{speaker} {verb} {one} had {deed} {two}"
    if not follows and verb in FACT:
        one, two = two, one
    return text, draw.pick((f"{one} {deed} {two}", f"{two} was {deed} by {one}"))
