"""A BMC that speaks Redfish: what it allows is read from it, and nobody else gets the password."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from devices import Served, serving
from redfish_bmc import RedfishBmc, certificate

from labctl.adapters.power.redfish import RedfishSwitch
from labctl.inventory.wake import Redfish
from labctl.ports.power import PowerError

Reach = Callable[..., RedfishSwitch]


@pytest.fixture(scope="session")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return certificate(tmp_path_factory.mktemp("bmc"))


@pytest.fixture
def reach(tmp_path: Path, secret: Callable[[str, str], Path], signed: Any) -> Reach:
    def switch(
        served: Served, *, deadline_s: float = 10, password: str = "right horse", **fields: Any
    ) -> Any:
        fields = {"ca_file": signed[0], "password_file": secret("bmc", password + "\n")} | fields
        fields = {"address": "127.0.0.1", "port": served.port, "user": "ops"} | fields
        return RedfishSwitch(Redfish(**fields), tmp_path, deadline_s=deadline_s)

    return switch


def test_a_host_that_is_off_is_switched_on_and_cut(reach: Reach, signed: Any) -> None:
    bmc = RedfishBmc()
    with serving(bmc, tls=signed[1]) as served:
        switch = reach(served, system="/redfish/v1/Systems/Self")
        assert switch.power() == "off"
        switch.wake()
        assert switch.power() == "on"
        switch.wake()
        switch.cut()
        switch.cut()
    assert (bmc.resets, bmc.state) == (["On", "ForceOff"], "Off")


def test_the_only_system_is_found_where_the_path_is_another(reach: Reach, signed: Any) -> None:
    bmc = RedfishBmc()
    with serving(bmc, tls=signed[1]) as served:
        reach(served).wake()
    assert bmc.resets == ["On"]


@pytest.mark.parametrize(
    ("systems", "words"),
    [
        (("/redfish/v1/Systems/A", "/redfish/v1/Systems/B"), "it has /redfish/v1/Systems/A, .*Systems/B"),
        ((), "it names none"),
    ],
)
def test_of_several_systems_none_is_guessed(
    systems: tuple[str, ...], words: str, reach: Reach, signed: Any
) -> None:
    with serving(RedfishBmc(systems=systems), tls=signed[1]) as served:
        with pytest.raises(PowerError, match=words) as caught:
            reach(served).wake()
    assert (caught.value.code, "`system`" in caught.value.hint) == ("unsupported", True)


@pytest.mark.parametrize(
    ("allowed", "state", "kind"),
    [
        (("ForceOn", "ForceOff"), "Off", "ForceOn"),
        (("PushPowerButton",), "Off", "PushPowerButton"),
        (("On",), "PoweringOff", "On"),
        (None, "Off", "On"),
    ],
)
@pytest.mark.parametrize("by_info", [False, True])
def test_the_kind_of_reset_is_one_that_the_bmc_allows(
    allowed: tuple[str, ...] | None, state: str, kind: str, by_info: bool, reach: Reach, signed: Any
) -> None:
    bmc = RedfishBmc(allowed=allowed, state=state, by_info=by_info and allowed is not None)
    with serving(bmc, tls=signed[1]) as served:
        reach(served).wake()
    assert bmc.resets == [kind]


def test_the_button_is_not_pushed_on_a_system_that_may_be_on(reach: Reach, signed: Any) -> None:
    bmc = RedfishBmc(allowed=("PushPowerButton",), state="PoweringOn")
    with serving(bmc, tls=signed[1]) as served:
        with pytest.raises(PowerError, match="allows PushPowerButton, and not On or ForceOn"):
            reach(served).wake()
        assert reach(served).power() == "unclear"
        with pytest.raises(PowerError, match="allows PushPowerButton, and not ForceOff"):
            reach(served).cut()
    assert bmc.resets == []


@pytest.mark.parametrize("basic", ["advertised", "unadvertised", "off"])
def test_login_is_basic_or_a_session_which_is_given_back(basic: str, reach: Reach, signed: Any) -> None:
    bmc = RedfishBmc(basic=basic)
    with serving(bmc, tls=signed[1]) as served:
        reach(served).wake()
        sessions = [path for _, path in served.seen() if "SessionService" in path]
    assert (bmc.resets, bmc.sessions) == (["On"], {})
    expected = ["/redfish/v1/SessionService/Sessions", "/redfish/v1/SessionService/Sessions/1"]
    assert sessions == (expected if basic == "off" else [])


@pytest.mark.parametrize(("basic", "logins"), [("advertised", 1), ("unadvertised", 2), ("off", 1)])
def test_a_wrong_password_is_said_not_shown_and_not_tried_again_and_again(
    basic: str, logins: int, reach: Reach, signed: Any
) -> None:
    bmc = RedfishBmc(basic=basic)
    with serving(bmc, tls=signed[1]) as served:
        with pytest.raises(PowerError, match="refuses the user or password") as caught:
            reach(served, password="sesame-street").wake()
    assert (caught.value.code, bmc.logins) == ("auth", logins)
    assert "sesame" not in str(caught.value) + caught.value.hint


def test_a_user_who_may_not_switch_is_told_in_the_bmcs_words(reach: Reach, signed: Any) -> None:
    with serving(RedfishBmc(operator=False), tls=signed[1]) as served:
        with pytest.raises(
            PowerError, match="does not allow this user to do that: There are insuff"
        ) as caught:
            reach(served).wake()
    assert caught.value.code == "auth"


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("500", "server-error", "answers 500: out of memory"),
        ("half", "bad-answer", "ended the connection within its answer"),
        ("hang", "timeout", "does not answer in time"),
        ("drip", "timeout", "does not answer in time"),
        ("redirect", "bad-answer", "sends us elsewhere, which is not followed"),
        ("garbage", "bad-answer", "answers, but not as such a device does"),
        ("flood", "bad-answer", "more than 1 MiB"),
    ],
)
def test_each_fault_of_a_bmc_has_its_words(
    fault: str, code: str, words: str, reach: Reach, signed: Any
) -> None:
    with serving(RedfishBmc(), tls=signed[1]) as served:
        served.fault = fault
        with pytest.raises(PowerError, match=words) as caught:
            reach(served, deadline_s=0.1 if fault in ("hang", "drip") else 10).power()
    assert caught.value.code == code


def test_a_reset_that_fails_is_an_error_with_the_bmcs_words(reach: Reach, signed: Any) -> None:
    bmc = RedfishBmc()
    with serving(bmc, tls=signed[1]) as served:
        served.fault, served.spare = "500", "/redfish/v1/Systems/Self"
        with pytest.raises(PowerError, match="answers 500: out of memory"):
            reach(served, system="/redfish/v1/Systems/Self").wake()
    assert bmc.resets == []


@pytest.mark.parametrize("target", ["https://evil.example/reset", "//evil.example/reset", "reset"])
def test_an_address_that_leads_to_another_server_is_not_asked(target: str, reach: Reach, signed: Any) -> None:
    with serving(RedfishBmc(target=target), tls=signed[1]) as served:
        with pytest.raises(PowerError, match="names an address that is none of its own"):
            reach(served).wake()


def test_a_certificate_that_nobody_we_know_signed_ends_it_before_the_password(
    reach: Reach, signed: Any
) -> None:
    with serving(RedfishBmc(), tls=signed[1]) as served:
        with pytest.raises(PowerError, match="is not to be trusted: self-signed certificate") as caught:
            reach(served, ca_file=None).power()
        assert served.asked == []
    assert (caught.value.code, "`ca_file`" in caught.value.hint) == ("certificate", True)


def test_a_certificate_for_another_address_is_none(reach: Reach, tmp_path: Path) -> None:
    file, tls = certificate(tmp_path, "192.0.2.7")
    with serving(RedfishBmc(), tls=tls) as served:
        with pytest.raises(PowerError, match=r"is not to be trusted: .*not valid for '127") as caught:
            reach(served, ca_file=file).power()
        assert served.asked == []
    assert caught.value.code == "certificate"


def test_who_speaks_no_tls_gets_no_password(reach: Reach) -> None:
    with serving(RedfishBmc()) as served:
        with pytest.raises(PowerError) as caught:
            reach(served).power()
        assert served.asked == []
    assert caught.value.code == "certificate"


@pytest.mark.parametrize(
    ("content", "words"), [("no PEM", "it holds no certificate"), (None, "No such file")]
)
def test_a_file_of_certificates_that_holds_none_is_named(
    content: str | None, words: str, reach: Reach, tmp_path: Path, signed: Any
) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    with serving(RedfishBmc(), tls=signed[1]) as served:
        with pytest.raises(PowerError, match=words) as caught:
            reach(served, ca_file=Path("ca.pem")).power()
    assert caught.value.code == "certificate"
