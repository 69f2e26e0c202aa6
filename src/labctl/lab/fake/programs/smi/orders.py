"""What nvidia-smi changes: power limits, persistence mode, locked clocks; till a card refuses."""

from __future__ import annotations

from collections.abc import Callable

from .cards import DENIED, INVALID, UNSUPPORTED, WORDS, Card, Failed
from .ends import End, say

NO_PERSISTENCE = (
    "\nWarning: persistence mode is disabled on device {}. See the Known Issues section of the nvidia-smi(1) "
    "man page for more information. Run with [--help | -h] switch to get more information on how to enable "
    "persistence mode."
)


def change(cards: list[Card], act: Callable[[Card], str]) -> None:
    """Do something to each card and say how it went; the first refusal ends it."""
    for card in cards:
        said = act(card)
        if said:
            say(said)
    say("All done.")


def warned(card: Card, said: str) -> str:
    """Return what is said of a change, and that it may not last."""
    return said if card.number("PersistenceMode") else f"{said}\n{NO_PERSISTENCE.format(card.bus)}"


def refused(code: int, said: str) -> End:
    """Return the end that a refusal brings."""
    return End(code, f"{said}\nTerminating early due to previous errors.")


def limit_power(watts: float) -> Callable[[Card], str]:
    """Return what sets a card's power limit."""

    def act(card: Card) -> str:
        bus = card.bus
        try:
            before = card.number("PowerManagementLimit")
            low, high = card.pair("PowerManagementLimitConstraints")
            if not low <= watts * 1000 <= high:
                raise refused(
                    INVALID,
                    f"Provided power limit {watts:.2f} W is not a valid power limit which should be between "
                    f"{low / 1000:.2f} W and {high / 1000:.2f} W for GPU {bus}",
                )
            card.call("nvmlDeviceSetPowerManagementLimit", int(watts * 1000))
        except Failed as failure:
            if failure.code == UNSUPPORTED:
                return f"Changing power management limit is not supported in current scope for GPU: {bus}."
            words = WORDS.get(failure.code, "Unknown Error")
            raise refused(
                failure.code, f"Failed to set power management limit for GPU {bus}: {words}"
            ) from None
        return warned(card, f"Power limit for GPU {bus} was set to {watts:.2f} W from {before / 1000:.2f} W.")

    return act


def set_persistence(on: int) -> Callable[[Card], str]:
    """Return what switches a card's persistence mode."""
    word = "Enabled" if on else "Disabled"

    def act(card: Card) -> str:
        try:
            if card.number("PersistenceMode") == on:
                return f"Persistence mode is already {word} for GPU {card.bus}."
            card.call("nvmlDeviceSetPersistenceMode", on)
        except Failed as failure:
            words = WORDS.get(failure.code, "Unknown Error")
            raise refused(
                failure.code, f"Unable to set persistence mode for GPU {card.bus}: {words}"
            ) from None
        return f"{word} persistence mode for GPU {card.bus}."

    return act


def lock_clocks(low: int, high: int) -> Callable[[Card], str]:
    """Return what locks a card's graphics clock."""

    def act(card: Card) -> str:
        both = f'"(gpuClkMin {low}, gpuClkMax {high})"'
        try:
            card.call("nvmlDeviceSetGpuLockedClocks", low, high)
        except Failed as failure:
            return _no_lock(card, both, failure.code)
        return warned(card, f"GPU clocks set to {both} for GPU {card.bus}")

    return act


def _no_lock(card: Card, both: str, code: int) -> str:
    if code == DENIED:
        raise refused(code, f"The current user does not have permission to change clocks for GPU {card.bus}.")
    return (
        f"Specified clock combination {both} is not supported for GPU {card.bus}. Run 'nvidia-smi -q -d "
        "SUPPORTED_CLOCKS' to see list of supported clock combinations\nTreating as warning and moving on."
    )


def unlock_clocks(card: Card) -> str:
    """Let a card's graphics clock go free."""
    try:
        card.call("nvmlDeviceResetGpuLockedClocks")
    except Failed as failure:
        return _no_lock(card, "", failure.code) if failure.code == DENIED else ""
    return ""
