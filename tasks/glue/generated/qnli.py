"""Question answering: the sentence must hold what is asked for, and agree on who did what."""

from __future__ import annotations

from tasks.glue.generated.draw import Draw, Label, Pair, groups, words

RULERS = words("king, queen, duke, bishop, general, emperor, prince, baron, governor, admiral")
DEEDS = groups(
    "defeated/defeat, attacked/attack, betrayed/betray, captured/capture, rescued/rescue, tricked/trick, stopped/stop, "
    "surprised/surprise"
)
CITIES = words("York, Rome, Vienna, Prague, Lisbon, Cologne, Naples, Athens, Seville, Warsaw")
WITH = words("a small army, a false letter, two ships, the help of monks, hidden gold, an old trick")
WHY = words("a war was feared, the people were angry, the harvest had failed, money was short, peace was near")
YEARS = tuple(str(year) for year in range(1512, 1900, 17))
ADJUNCTS = words("when, where, how, why")
SLOTS = (*ADJUNCTS, "who", "whom")


def draw_pair(draw: Draw, label: Label) -> Pair:
    """Draw a question and a sentence that answers it (0) or does not (1)."""
    agent, patient, stranger = draw.several(RULERS, 3)
    past, stem = draw.pick(DEEDS)
    asked, told = draw.pick(SLOTS), draw.several(ADJUNCTS, 2)
    if asked in ADJUNCTS and asked not in told:
        told[0] = asked
    who, whom = agent, patient
    if label:
        fault = draw.pick(("slot", "roles", "stranger") if asked in told else ("roles", "stranger"))
        if fault == "slot":
            told[told.index(asked)] = draw.pick([slot for slot in ADJUNCTS if slot not in told])
        elif fault == "roles":
            who, whom = patient, agent
        elif asked == "who" or (asked != "whom" and draw.chance(0.5)):
            whom = stranger
        else:
            who = stranger
    return _question(asked, who, whom, past, stem), _statement(draw, agent, patient, past, told)


def _question(asked: str, who: str, whom: str, past: str, stem: str) -> str:
    if asked == "who":
        return f"Who {past} the {whom}?"
    if asked == "whom":
        return f"Whom did the {who} {stem}?"
    return f"{asked.capitalize()} did the {who} {stem} the {whom}?"


def _statement(draw: Draw, agent: str, patient: str, past: str, told: list[str]) -> str:
    phrases = {
        "when": f"in {draw.pick(YEARS)}",
        "where": f"near {draw.pick(CITIES)}",
        "how": f"with {draw.pick(WITH)}",
        "why": f"because {draw.pick(WHY)}",
    }
    core = f"the {agent} {past} the {patient}"
    parts = [phrases[slot] for slot in ("where", "when", "how", "why") if slot in told]
    if told[0] != "why" and draw.chance(0.5):
        front = phrases[told[0]]
        return ", ".join((front, " ".join((core, *(part for part in parts if part != front)))))
    return " ".join((core, *parts))
