"""How a run went, in words. Knows no torch."""

from typing import Any


def describe_course(summary: dict[str, Any]) -> list[str]:
    """Returns what a reader of the results must know of how a run went; nothing if all is well.

    Args:
        summary: The run's summary; one of an earlier version may lack what is to be told.
    """
    remarks = []
    events = summary.get("events", ())
    for event, phrase in (
        ("resumed", "resumed"),
        ("interrupted", "interrupted by a signal"),
        ("damaged checkpoint", "went back to an older checkpoint, as one was damaged,"),
    ):
        count = sum(record["event"] == event for record in events)
        if count:
            remarks.append(f"{phrase} {count} time{'s' * (count > 1)}")
    changed = {key for record in events for key in record.get("changed", ())}
    if changed:
        remarks.append(f"resumed with a different {', '.join(sorted(changed))}")
    for number, stage in enumerate(summary["levels"]):
        where = f"stage {number} on level {stage['level']}"
        count = len(stage.get("went_back", ()))
        if count:
            remarks.append(f"{where} rolled back {count} time{'s' * (count > 1)}")
        if stage.get("outcome") == "never improved":
            remarks.append(f"{where}: the validation error never improved")
    if summary["levels"][-1].get("outcome") == "still improving":
        remarks.append("unconverged: the validation error was still falling at the end")
    return remarks
